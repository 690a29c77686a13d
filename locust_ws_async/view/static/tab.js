/* The tab in Locust's web UI. Locust draws an empty one, and knows no charts: the section is put below the tabs while
   ours is selected, beside what React draws there. React leaves it alone. */

const KEY = "websocket";
const INTERVAL = 2000; // milliseconds, as Locust's own pages ask

const section = new Section({ live: true });
let history = null;
let timer = null;
let asking = false;

/* Whether our tab is selected. The address may say something else: Locust does not follow the browser's "Back". */
function selectedTab() {
    const tabs = document.querySelectorAll("[role=tab]");
    const extended = window.templateArgs.extended_tabs; // they come last, in this order
    const ours = tabs[tabs.length - extended.length + extended.findIndex(({ key }) => key === KEY)];
    return ours?.getAttribute("aria-selected") === "true" ? ours : null;
}

function followPage() {
    const tab = selectedTab();
    if (tab === null) {
        section.root.remove();
        clearInterval(timer);
        timer = null;
        return;
    }
    if (!section.root.isConnected) {
        (tab.closest(".MuiContainer-root") ?? document.body).append(section.root);
        section.fit();
    }
    section.takeTheme();
    if (timer === null) {
        timer = setInterval(ask, INTERVAL);
        ask();
    }
}

async function ask() {
    if (asking || document.hidden) return; // a busy Locust may take longer than the interval
    asking = true;
    try {
        const since = history?.time.length ? `?since=${history.time.at(-1)}` : "";
        const [stats, newer] = await Promise.all([get("stats"), get(`history${since}`)]);
        history = joined(history, newer);
        section.show(stats, history);
    } catch (error) {
        section.note.textContent = `No answer from Locust: ${error.message}`;
    } finally {
        asking = false;
    }
}

async function get(name) {
    const response = await fetch(`./websocket/${name}`);
    if (response.redirected) throw new Error("please log in again");
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return response.json();
}

/* The lines so far and the newer ones, without those that Locust no longer has: after a reset, and in the next run. */
function joined(old, newer) {
    if (old === null) return newer;
    const kept = newer.first === null ? [] : old.time.filter(time => time >= newer.first);
    const column = (before, after, missing) => [
        ...(before ?? old.time.map(() => missing)).slice(old.time.length - kept.length),
        ...(after ?? newer.time.map(() => missing)),
    ];
    const result = { ...newer, closes: {} };
    for (const [name, values] of Object.entries(newer)) {
        if (Array.isArray(values) && name !== "spans") result[name] = column(old[name], values, null);
    }
    for (const [code, values] of Object.entries(newer.closes)) {
        result.closes[code] = column(old.closes[code], values, 0); // a code is not named before its first close
    }
    return result;
}

new MutationObserver(records => {
    if (!records.every(({ target }) => section.root.contains(target))) followPage();
}).observe(document.body, { childList: true, subtree: true, attributeFilter: ["aria-selected"] });
followPage();
