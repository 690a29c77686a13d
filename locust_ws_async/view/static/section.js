/* The section "WebSocket" of Locust's web UI and of its report: four charts on one time axis, and the workers below.

   uPlot comes before this file, and tab.js or report.js after it: the package joins them to one module (assets.py). */

const GREEN = "#00ca5a", RED = "#ff6d6d", ORANGE = "#ff9f00", BLUE = "#0099ff", PURPLE = "#9966cc"; // Locust's charts
const OF_CODES = { 1000: "#8fa3ad", 1006: RED }; // closed as intended, and lost
const OF_OTHER_CODES = [ORANGE, PURPLE, "#b5651d", "#e377c2", "#17becf", "#b8a000"];
const COLORS = {
    light: { labels: "#54555a", axis: "#000", grid: "#ddd" },
    dark: { labels: "#b3c3bc", axis: "#5b6f66", grid: "#4c4c52" },
};
const SHADE = "rgba(255, 159, 0, 0.16)"; // where the generator was saturated
const HEIGHT = 210; // pixels of a chart, without title and legend

/* Each chart: its title, and from the columns of /websocket/history its lines: name, colour, values, dashes. */
const CHARTS = [
    {
        title: "Connections",
        lines: history => [
            ["Users", BLUE, history.users],
            ["Open", GREEN, history.open],
            ["Connecting", PURPLE, history.connecting],
            ["Reconnecting", ORANGE, history.reconnecting],
        ],
    },
    {
        title: "Messages per Second",
        lines: history => [
            ["In", GREEN, history.messages_in],
            ["Out", BLUE, history.messages_out],
        ],
    },
    {
        title: "Connects, Closes and Recoveries per Second",
        lines: history => [
            ["Connects", BLUE, history.opened],
            ["Recoveries", GREEN, history.recoveries, [10, 10]], // each is a connect too, and would hide it
            ...codes(history.closes).map((code, index) => [
                `Closes ${code}`, OF_CODES[code] ?? OF_OTHER_CODES[index % OF_OTHER_CODES.length], history.closes[code],
            ]),
        ],
    },
    {
        title: "Queue Wait and Hub Lag (ms)",
        lines: history => [
            ["Queue wait", PURPLE, history.queue_wait_ms],
            ["Hub lag", ORANGE, history.hub_lag_ms],
        ],
    },
];

/* The columns of the table: title, and the text of a cell from a worker's entry in /websocket/stats. What is true
   of the moment only is not shown of a run that is over. */
const COLUMNS = [
    { title: "Users", ofNow: true, text: worker => count(worker.users) },
    { title: "Open", ofNow: true, text: worker => count(worker.open) },
    { title: "Reconnecting", ofNow: true, text: worker => count(worker.reconnecting) },
    { title: "Opened", text: worker => count(worker.opened) },
    { title: "Closes", kind: "codes", text: worker =>
        codes(worker.closes).map(code => `${code}:\u00a0${count(worker.closes[code])}`).join(", ") },
    { title: "Recoveries", text: worker => count(worker.recoveries) },
    { title: "Messages in", text: worker => count(worker.messages_in) },
    { title: "In/s", ofNow: true, text: worker => decimals(worker.rates.messages_in, 1) },
    { title: "Messages out", text: worker => count(worker.messages_out) },
    { title: "Out/s", ofNow: true, text: worker => decimals(worker.rates.messages_out, 1) },
    { title: "Late", text: worker => count(worker.late) },
    { title: "Dropped", text: worker => count(worker.dropped) },
    { title: "Queue wait (ms)", text: worker => decimals(worker.queue_wait.mean_ms, 2) },
    { title: "Hub lag (ms)", ofNow: true, text: worker => decimals(worker.generator?.hub_lag_p99_ms, 1) },
    { title: "CPU", ofNow: true, text: worker => percent(worker.generator?.cpu) },
];

const codes = closes => Object.keys(closes ?? {}).sort();
const count = value => value == null ? "" : value.toLocaleString();
const rounded = (value, least, most) =>
    value.toLocaleString(undefined, { minimumFractionDigits: least, maximumFractionDigits: most });
const decimals = (value, digits) => value == null ? "" : rounded(value, digits, digits);
const percent = share => share == null ? "" : `${decimals(100 * share, 0)}\u00a0%`;
const clock = seconds => {
    if (seconds == null) return "";
    const date = new Date(seconds * 1000);
    return Date.now() - date < 86400e3 ? date.toLocaleTimeString() : date.toLocaleString();
};

/* A worker's name without most of the random digits at its end. */
const short = worker => worker.replace(/(_[0-9a-f]{6})[0-9a-f]{26}$/, "$1…");

function element(name, className, ...children) {
    const made = document.createElement(name);
    made.className = className;
    made.append(...children);
    return made;
}

/* Draws what it is given. It asks for nothing, and is put into a page by others. */
class Section {
    /* live: whether what is shown is now, and not a run that is over. */
    constructor({ live }) {
        this.live = live;
        this.root = element("section", "websocket");
        this.charts = [];
        this.names = [];
        this.zoomed = null; // [from, to] in epoch seconds, once somebody has selected a span
        this.spans = [];
        this.note = element("p", "websocket-note");
        this.verdict = element("ul", "websocket-verdict");
        this.plots = element("div", "websocket-plots");
        this.workers = element("div", "websocket-workers");
        this.root.append(this.note, this.verdict, this.plots, this.workers);
        new ResizeObserver(() => this.fit()).observe(this.plots);
    }

    /* Show an answer of /websocket/stats, and one of /websocket/history since its first line. */
    show(stats, history) {
        this.history = history;
        this.spans = history.spans ?? [];
        this.note.textContent = history.time.length ? "" : "No WebSocket connection yet.";
        this.drawCharts();
        this.tellVerdict();
        this.workers.replaceChildren(table(stats, this.spans, this.live));
    }

    /* Take the colours of the page, which may have changed. */
    takeTheme() {
        const color = getComputedStyle(document.body).backgroundColor; // rgb(18, 18, 18), or rgba(...)
        const [red, green, blue, alpha = 1] = color.match(/[\d.]+/g).map(Number);
        const theme = alpha > 0 && red + green + blue < 3 * 128 ? "dark" : "light";
        if (this.root.dataset.theme !== theme) {
            this.root.dataset.theme = theme;
            for (const chart of this.charts) chart.redraw();
        }
    }

    drawCharts() {
        const lines = CHARTS.map(chart => chart.lines(this.history));
        const names = JSON.stringify(lines.map(chart => chart.map(([name]) => name)));
        if (names !== this.names) { // the first time, and when a close code is new
            this.names = names;
            for (const chart of this.charts) chart.destroy();
            this.charts = CHARTS.map(({ title }, index) => this.chart(title, lines[index]));
        }
        this.charts.forEach((chart, index) => chart.setData(this.data(lines[index])));
    }

    data(lines) {
        const { time } = this.history;
        return [time, ...lines.map(([, , values]) => values ?? time.map(() => null))];
    }

    chart(title, lines) {
        const colors = () => COLORS[this.root.dataset.theme ?? "light"];
        const axis = { stroke: () => colors().labels, font: "12px sans-serif", ticks: { show: false } };
        const options = {
            title,
            width: this.width(),
            height: HEIGHT,
            padding: [8, 40, 0, 0],
            legend: { markers: { width: 0, fill: (_, series) => lines[series - 1]?.[1] } },
            cursor: {
                sync: { key: "websocket" },
                y: false,
                points: { size: 6 },
                drag: { setScale: false },
                bind: { dblclick: () => () => this.zoom(null) },
            },
            scales: {
                x: { range: (_, from, to) => this.zoomed ?? (from < to ? [from, to] : [from - 1, from + 1]) },
                y: { range: (_, __, highest) => [0, Math.max(highest ?? 0, 1) * 1.1] },
            },
            axes: [
                { ...axis, scale: "y", side: 3, size: 60, space: 25, grid: { stroke: () => colors().grid, width: 1 } },
                {
                    ...axis,
                    scale: "x",
                    side: 2,
                    values: (_, times, __, ___, step) => times.map(time => tick(time, step)),
                    grid: { show: false },
                    border: { show: true, width: 1, stroke: () => colors().axis },
                    space: 90,
                    size: 28,
                },
            ],
            series: [
                { label: "Time", value: (plot, time) => clock(time ?? plot.data[0].at(-1)) },
                ...lines.map(([label, stroke, , dash]) => ({
                    label, stroke, dash, width: 2, value: valueOrLast,
                    points: { show: true, size: 4, fill: stroke, filter: alone },
                })),
            ],
            hooks: {
                drawClear: [plot => shade(plot, this.spans)],
                setSelect: [plot => {
                    const { left, width } = plot.select;
                    if (width > 0) this.zoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
                }],
            },
        };
        return new uPlot(options, this.data(lines), this.plots);
    }

    /* Show this span in all charts; with null, everything. */
    zoom(span) {
        this.zoomed = span;
        for (const chart of this.charts) {
            chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            chart.setData(chart.data);
        }
    }

    width() {
        return Math.max(this.plots.clientWidth, 200);
    }

    fit() {
        for (const chart of this.charts) {
            if (chart.width !== this.width()) chart.setSize({ width: this.width(), height: HEIGHT });
        }
    }

    tellVerdict() {
        const newest = this.spans.slice(-5);
        const lines = newest.map(({ worker, from, to, why }) =>
            `Generator saturated${worker === "local" ? "" : ` on ${short(worker)}`} from ${clock(from)} ` +
            `${to == null ? "until now" : `to ${clock(to)}`}: ${why}.`);
        const earlier = this.spans.length - newest.length;
        if (earlier) lines.unshift(`${earlier} earlier spans are shaded too.`);
        if (lines.length) lines.push("Times in the shaded spans are partly this machine's.");
        this.verdict.replaceChildren(...lines.map(line => element("li", "", line)));
    }
}

/* What the legend says: the value below the cursor, and without a cursor the last. */
function valueOrLast(plot, value, series, index) {
    const shown = index == null ? plot.data[series].at(-1) : value;
    return shown == null ? "–" : rounded(shown, 0, shown < 10 ? 2 : 0);
}

/* The points that no line shows: nothing is known before and after them. */
function alone(plot, series) {
    const values = plot.data[series];
    const first = plot.scales.x.min, last = plot.scales.x.max;
    const shown = [];
    values.forEach((value, index) => {
        const time = plot.data[0][index];
        if (value != null && values[index - 1] == null && values[index + 1] == null && time >= first && time <= last) {
            shown.push(index);
        }
    });
    return shown;
}

/* The label of a time on the axis, whose labels are so many seconds apart. */
function tick(time, step) {
    const date = new Date(time * 1000);
    if (step >= 86400) return date.toLocaleDateString();
    return date.toLocaleTimeString(undefined, {
        hour: "2-digit", minute: "2-digit", second: step < 60 ? "2-digit" : undefined,
    });
}

function shade(plot, spans) {
    const { ctx, bbox: { left, top, width, height } } = plot;
    const at = time => Math.min(Math.max(plot.valToPos(time, "x", true), left), left + width);
    ctx.save();
    ctx.fillStyle = SHADE;
    for (const { from, to } of spans) {
        const start = at(from), end = to == null ? left + width : at(to);
        ctx.fillRect(start, top, end - start, height);
    }
    ctx.restore();
}

function table({ total, workers }, spans, live) {
    const gauges = Object.keys(total.gauges).sort();
    const columns = [
        ...COLUMNS,
        ...gauges.map(name => ({ title: name, ofNow: true, text: worker => count(worker.gauges[name]) })),
    ].filter(({ ofNow }) => live || !ofNow);
    const saturated = new Set(spans.filter(({ to }) => to == null).map(({ worker }) => worker));
    const state = (id, { left, age }) => {
        if (left) return "left";
        if (!live) return "to the end";
        return saturated.has(id) ? "saturated" : `${decimals(age, 0)} s ago`;
    };
    const row = (name, entry, last, className) => {
        const first = element("td", "", short(name));
        first.title = name;
        const cells = columns.map(({ text, kind }) => element("td", kind ?? "", text(entry)));
        return element("tr", className, first, ...cells, element("td", "", last));
    };
    const titles = ["Worker", ...columns.map(({ title }) => title), "Reported"];
    return element("table", "",
        element("thead", "", element("tr", "", ...titles.map(title => element("th", "", title)))),
        element("tbody", "",
            ...Object.entries(workers).map(([id, entry]) => row(id, entry, state(id, entry), entry.left ? "left" : "")),
            row("Total", total, "", "total")));
}
