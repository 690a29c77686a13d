/* The section in Locust's report, drawn once from what the file holds. */

const section = new Section({ live: false });
const { stats, history } = JSON.parse(document.getElementById("websocket-data").textContent);

/* Before the last part, once React has drawn the parts. */
function insert() {
    const last = [...document.querySelectorAll("#root h2")].at(-1)?.parentElement;
    if (!last) return false;
    const part = element("div", "websocket-part", element("h2", "", "WebSocket"), section.root);
    last.before(part);
    section.takeTheme();
    section.show(stats, history);
    return true;
}

if (!insert()) {
    new MutationObserver((_, observer) => {
        if (insert()) observer.disconnect();
    }).observe(document.getElementById("root"), { childList: true, subtree: true });
}
