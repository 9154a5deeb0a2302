// Asks the server for the state every two seconds while the page is visible, and shows it. Everything has its place and
// its height before the first answer, so that nothing moves when figures come.
"use strict";

const PERIOD_MS = 2000;
const TIMEOUT_MS = 8000;
const ENGINES = ["spark", "flink"];
const NAMES = {spark: "Spark", flink: "Flink"};
// The pipeline above says the whole sentence.
const WORDS = {ok: "writes", idle: "idle", warn: "attention", down: "down", unknown: "not known"};
const find = (selector, root = document) => root.querySelector(selector);

// Figures as text

const NONE = "–";
const number = (value, digits) => value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const milliseconds = (value) => {
  if (value == null) return NONE;
  if (Math.abs(value) < 9.95) return `${number(value, 1)} ms`;
  if (value < 999.5) return `${number(value, 0)} ms`;
  if (value < 119950) return `${number(value / 1000, 1)} s`;
  return value < 5.94e6 ? `${number(value / 60000, 0)} min` : `${number(value / 3.6e6, 1)} h`;
};
const perSecond = (value) => value == null ? NONE : number(value, value < 100 ? 1 : 0);
const gibibytes = (value) => value == null ? NONE : `${number(value / 2 ** 30, 2)} GiB`;
const price = (value) => value == null ? NONE : number(value, value >= 500 ? 2 : value >= 10 ? 3 : value >= 0.2 ? 4 : 5);
// How many digits a scale in such steps needs.
const digits = (step) => [0, 1, 2, 3, 4, 5].find((count) => Math.abs(step * 10 ** count - Math.round(step * 10 ** count)) < 1e-6) ?? 6;
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const minute = (ms) => clock(ms).slice(0, 5);

function setText(element, text) {
  // An unchanged text is left alone: a live region would be read out again.
  if (element.textContent !== text) element.textContent = text;
}

function setState(element, part) {
  if (element.dataset.state !== part.state) element.dataset.state = part.state;
  setText(find(".text", element), part.text);
}

// Charts

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A uPlot in a box of fixed height, with a sentence for those who do not see it and values to step through by keyboard.
class Chart {
  constructor(box, readout, options, describe) {
    this.box = box;
    this.readout = readout;
    this.options = options;
    this.describe = describe;
    this.note = document.createElement("p");
    this.note.className = "empty";
    box.append(this.note);
    box.setAttribute("role", "img");
    box.tabIndex = 0;
    box.addEventListener("keydown", (event) => this.step(event));
    box.addEventListener("blur", () => setText(this.readout, ""));
    new ResizeObserver(() => this.resize()).observe(box);
  }

  show(data, label, empty) {
    this.data = data;
    this.box.setAttribute("aria-label", label);
    const note = typeof uPlot === "undefined" ? "uPlot was not loaded: no charts" : empty;
    setText(this.note, note);
    this.note.hidden = note === "";
    if (note) this.drop();
    else if (this.plot) this.plot.setData(data);
    else this.make();
  }

  make() {
    const options = this.options();
    options.width = this.box.clientWidth || 100;
    options.height = this.box.clientHeight || 100;
    options.legend = {show: false};
    options.cursor = {drag: {x: false, y: false, setScale: false}, y: false, points: {show: false}};
    options.hooks = {...options.hooks, setCursor: [(plot) => this.read(plot.cursor.left < 0 ? null : plot.cursor.idx)]};
    this.plot = new uPlot(options, this.data, this.box);
  }

  drop() {
    this.plot?.destroy();
    this.plot = null;
  }

  rebuild() {
    if (!this.plot) return;
    this.drop();
    this.make();
  }

  resize() {
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    if (this.plot && width && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({width, height});
  }

  read(index) {
    setText(this.readout, index == null || !this.data[0].length ? "" : this.describe(this.data, index));
  }

  step(event) {
    const last = this.data ? this.data[0].length - 1 : -1;
    const at = this.at ?? last;
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last}[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.at = Math.min(Math.max(to, 0), last);
    this.read(this.at);
  }
}

const axis = (more) => ({
  stroke: colour("soft"), font: "12px system-ui, sans-serif", grid: {stroke: colour("grid"), width: 1}, ticks: {show: false}, gap: 4, ...more,
});
const timeAxis = (more) => axis({size: 28, gap: 8, space: 60, values: (plot, splits) => splits.map((second) => minute(second * 1000)), ...more});

function latencyOptions() {
  const line = (name, dash) => ({stroke: colour(name), width: 2, dash, points: {show: false}, spanGaps: false});
  return {
    scales: {
      y: {
        distr: 3,
        range: (plot, low, high) => [10 ** Math.floor(Math.log10(Math.max(low || 1, 0.1))), 10 ** Math.ceil(Math.log10(Math.max(high || 1000, 10)))],
      },
    },
    axes: [timeAxis(), axis({
      size: 52,
      splits: (plot, axis, low, high) => {
        const [first, last] = [low, high].map((end) => Math.round(Math.log10(end)));
        return Array.from({length: last - first + 1}, (_, index) => 10 ** (first + index));
      },
      filter: (plot, splits) => splits,
      values: (plot, splits) => splits.map((split) => milliseconds(split).replace(".0", "")),
    })],
    series: [{}, line("spark"), line("spark", [5, 4]), line("flink"), line("flink", [5, 4])],
  };
}

function rateOptions() {
  const line = (name, width, alpha) => ({stroke: colour(name), width, alpha, points: {show: false}});
  return {
    scales: {y: {range: (plot, low, high) => [0, high > 0 ? high * 1.15 : 1]}},
    axes: [timeAxis(), axis({size: 44, space: 34, values: (plot, splits) => splits.map((split) => number(split, split < 10 && split % 1 ? 1 : 0))})],
    series: [{}, line("flink", 6, 0.55), line("spark", 2, 1)],
  };
}

// Candles: time, open, high, low, close; hollow where the price rose, filled where it fell, so that the colour is free to
// say whose they are.
function drawCandles(name) {
  return (plot) => {
    const {ctx, data} = plot;
    const [opened, highest, lowest, closed] = [1, 2, 3, 4].map((series) => data[series]);
    const ratio = window.devicePixelRatio || 1;
    const step = data[0].length > 1 ? plot.valToPos(data[0][0] + 60, "x", true) - plot.valToPos(data[0][0], "x", true) : 6 * ratio;
    const width = Math.max(Math.round(step * 0.6), ratio);
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    ctx.clip();
    ctx.strokeStyle = ctx.fillStyle = colour(name);
    ctx.lineWidth = ratio;
    data[0].forEach((time, index) => {
      if (opened[index] == null) return;
      const x = Math.round(plot.valToPos(time + 30, "x", true)) + 0.5;
      const [top, bottom, from, to] = [highest, lowest, opened, closed].map((values) => plot.valToPos(values[index], "y", true));
      const [upper, lower] = [Math.min(from, to), Math.max(from, to)];
      const height = Math.max(lower - upper, ratio);
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, upper);
      ctx.moveTo(x, lower);
      ctx.lineTo(x, bottom);
      ctx.stroke();
      if (closed[index] >= opened[index] && height > 2 * ratio) ctx.strokeRect(x - width / 2, upper, width, height);
      else ctx.fillRect(x - width / 2 - ratio / 2, upper, width + ratio, height);
    });
    ctx.restore();
  };
}

function candleOptions(name, frame) {
  return () => ({
    // Both engines of a symbol have one frame, or their charts could not be compared.
    scales: {x: {range: () => frame.x}, y: {range: () => frame.y}},
    axes: [
      // The same quarters of an hour on both charts, whatever their widths.
      timeAxis({splits: (plot, axis, low, high) => Array.from({length: 4}, (_, index) => (Math.ceil(low / 900) + index) * 900).filter((second) => second <= high)}),
      axis({
        size: name === "spark" ? 58 : 18, space: 34,
        values: (plot, splits) => splits.map((split) => name === "flink" ? "" : number(split, digits(splits[1] - splits[0]))),
      }),
    ],
    padding: [8, 16, 0, 0],
    series: [{}, ...[1, 2, 3, 4].map(() => ({paths: () => null, points: {show: false}}))],
    hooks: {draw: [drawCandles(name)]},
  });
}

// Parts of the page

const charts = [];
const symbols = new Map();
let latencyChart;
let ratesChart;
let seenHistory = "";

function add(chart) {
  charts.push(chart);
  return chart;
}

function build() {
  for (const symbol of find("#symbols").dataset.symbols.split(" ")) symbolCard(symbol);
  latencyChart = add(new Chart(find("#latency .chart"), find("#latency .readout"), latencyOptions, (data, index) =>
    `${clock(data[0][index] * 1000)}  Spark ${milliseconds(data[1][index])}, p99 ${milliseconds(data[2][index])}; Flink ${milliseconds(data[3][index])}, p99 ${milliseconds(data[4][index])}`));
  ratesChart = add(new Chart(find("#rates .chart"), find("#rates .readout"), rateOptions, (data, index) =>
    `${clock(data[0][index] * 1000)}  Spark ${perSecond(data[2][index])}, Flink ${perSecond(data[1][index])}`));
}

function showEngine(card, engine) {
  if (card.dataset.state !== engine.state) card.dataset.state = engine.state;
  setText(find(".text", card), WORDS[engine.state]);
  const field = (name, text) => setText(find(`[data-field="${name}"]`, card), text);
  for (const name of ["p50_ms", "p95_ms", "p99_ms"]) field(name, milliseconds(engine[name]));
  field("basis", engine.rows === 0 ? "No row in the last minute"
    : `Latency over the last minute${engine.rows == null ? "" : engine.capped ? `, newest ${number(engine.rows, 0)} rows` : `, ${number(engine.rows, 0)} rows`}`);
  field("rows_per_s", perSecond(engine.rows_per_s));
  field("lag_name", engine.lag_of === "topic" ? "Lag to the topic's end" : "Lag to the other engine");
  field("lag", engine.lag == null ? NONE : engine.lag === 1 ? "1 event" : `${number(engine.lag, 0)} events`);
  field("cpu", engine.cpu_cores == null ? NONE : `${number(engine.cpu_cores, 2)} cores`);
  field("memory", gibibytes(engine.memory_bytes));
  field("cost_note", engine.note ? `CPU and memory: ${engine.note}` : "");
}

function showHistory(history, away) {
  const text = JSON.stringify([history, away]);
  if (text === seenHistory) return;
  seenHistory = text;
  const rows = new Map();
  ENGINES.forEach((name, engine) => {
    for (const [start, count, p50, p99] of history.engines[name] ?? []) {
      const row = rows.get(start) ?? {};
      row[engine] = {rate: count / history.step_s, p50, p99};
      rows.set(start, row);
    }
  });
  // A step without rows is a gap in latency, and zero in the rate.
  const starts = [...rows.keys()];
  const times = [];
  if (starts.length) {
    for (let at = Math.min(...starts); at <= Math.max(...starts); at += history.step_s * 1000) times.push(at);
  }
  const column = (engine, key, missing) => times.map((at) => rows.get(at)?.[engine]?.[key] ?? missing);
  // Before an engine's first step nothing is known of it.
  const rate = (engine) => {
    const first = history.engines[ENGINES[engine]]?.[0]?.[0] ?? 0;
    return column(engine, "rate", 0).map((value, index) => times[index] < first ? null : value);
  };
  const seconds = times.map((at) => at / 1000);
  const latencies = [seconds, column(0, "p50", null), column(0, "p99", null), column(1, "p50", null), column(1, "p99", null)];
  const rates = [seconds, rate(1), rate(0)];
  const newest = times.length - 1;
  const empty = times.length ? "" : away ? "PostgreSQL does not answer" : "No rows in the last quarter of an hour";
  latencyChart.show(latencies, times.length
    ? `Latency of the last quarter of an hour. Newest, at ${minute(times[newest])}: Spark p50 ${milliseconds(latencies[1][newest])}, p99 ${milliseconds(latencies[2][newest])}; Flink p50 ${milliseconds(latencies[3][newest])}, p99 ${milliseconds(latencies[4][newest])}. Arrow keys step through it.`
    : `Latency: ${empty}`, empty);
  ratesChart.show(rates, times.length
    ? `Rows per second of the last quarter of an hour. Newest, at ${minute(times[newest])}: Spark ${perSecond(rates[2][newest])}, Flink ${perSecond(rates[1][newest])}. Arrow keys step through it.`
    : `Rows per second: ${empty}`, empty);
}

function symbolCard(symbol) {
  if (symbols.has(symbol)) return symbols.get(symbol);
  const card = document.createElement("article");
  card.className = "card";
  card.append(find("#symbol-template").content.cloneNode(true));
  setText(find("h3", card), symbol);
  const frame = {x: [0, 1], y: [0, 1]};
  const found = {card, frame, seen: "", charts: {}};
  for (const name of ENGINES) {
    found.charts[name] = add(new Chart(find(`[data-chart="${name}"]`, card), find(".readout", card), candleOptions(name, frame), (data, index) =>
      `${NAMES[name]} ${minute(data[0][index] * 1000)}: ${["open", "high", "low", "close"].map((word, at) => `${word} ${price(data[at + 1][index])}`).join(", ")}`));
  }
  symbols.set(symbol, found);
  find("#symbols").append(card);
  return found;
}

function showSymbol(entry, away) {
  const found = symbolCard(entry.symbol);
  for (const name of ENGINES) {
    const quote = entry.quotes[name];
    setText(find(`[data-price="${name}"]`, found.card), price(quote?.price));
  }
  const differ = entry.compared - entry.equal;
  const verdict = entry.compared === 0 ? (away ? "not known" : "no candles of both yet") : differ ? `${differ} of ${entry.compared} candles differ` : `${entry.compared} candles, all equal`;
  const heading = find("h3", found.card);
  if (found.verdict !== verdict) {
    found.verdict = verdict;
    heading.textContent = `${entry.symbol} `;
    const word = document.createElement("span");
    word.className = differ ? "differ" : "soft";
    word.textContent = verdict;
    heading.append(word);
  }
  const text = JSON.stringify([entry.candles, away]);
  if (text === found.seen) return;
  found.seen = text;
  const end = Math.max(0, ...ENGINES.flatMap((name) => entry.candles[name]).map((candle) => candle[0])) / 1000 + 60;
  const start = end - 31 * 60;
  const shown = (name) => entry.candles[name].filter((candle) => candle[0] / 1000 >= start);
  const all = ENGINES.flatMap(shown);
  if (all.length) {
    const [low, high] = [Math.min(...all.map((candle) => candle[3])), Math.max(...all.map((candle) => candle[2]))];
    const margin = (high - low) * 0.06 || high * 0.001;
    found.frame.y = [low - margin, high + margin];
    found.frame.x = [start, end];
  }
  for (const name of ENGINES) {
    const candles = shown(name);
    const data = [candles.map((candle) => candle[0] / 1000), ...[1, 2, 3, 4].map((column) => candles.map((candle) => candle[column]))];
    const last = candles.at(-1);
    found.charts[name].show(data, last
      ? `${entry.symbol}, one-minute candles by ${NAMES[name]}: ${candles.length}, the last of ${minute(last[0])}, closed at ${price(last[4])}. Arrow keys step through them.`
      : `${entry.symbol}: no candles by ${NAMES[name]}`, last ? "" : away ? "Not known" : "No candles yet");
  }
}

function showAlerts(alerts) {
  const section = find("#alerts");
  setText(find(".text", section), alerts.more ? `${alerts.text}; ${alerts.more} more in Prometheus` : alerts.text);
  const list = find("ul", section);
  const items = alerts.items.map((alert) => {
    const item = document.createElement("li");
    item.dataset.state = alert.state === "firing" ? (alert.severity === "critical" ? "down" : "warn") : "idle";
    const name = document.createElement("b");
    name.textContent = alert.name;
    const more = document.createElement("small");
    const age = alert.since_ms == null ? "" : `, since ${clock(alert.since_ms)}`;
    more.textContent = `${alert.state}${alert.severity ? `, ${alert.severity}` : ""}${age}`;
    item.append(name, ` ${alert.summary}`, more);
    return item;
  });
  if (list.innerHTML !== items.map((item) => item.outerHTML).join("")) list.replaceChildren(...items);
}

function show(state) {
  setText(find("#lab"), state.lab === "lab" ? "" : state.lab);
  setState(find("#headline"), state.headline);
  document.title = `${state.headline.state === "ok" ? "" : "! "}${state.headline.text} – crypto-stream-lab`;
  if (state.now_ms) setText(find("#as-of"), clock(state.now_ms));
  for (const [name, part] of Object.entries(state.path)) setState(find(`[data-part="${name}"]`), part);
  for (const name of ENGINES) showEngine(document.getElementById(name), state.engines[name]);
  const away = !state.sources.database.answers;
  showHistory(state.history, away);
  for (const entry of state.symbols) showSymbol(entry, away);
  showAlerts(state.alerts);
  for (const [name, source] of Object.entries(state.sources)) setText(document.getElementById(name), source.text);
  document.body.dataset.shown = String(Number(document.body.dataset.shown ?? 0) + 1);
}

// The loop

let timer;
let isAsking = false;

async function ask() {
  clearTimeout(timer);
  // A page that nobody sees asks nothing, and then the server asks nobody.
  if (document.hidden || isAsking) return;
  isAsking = true;
  try {
    const answer = await fetch("/api/state", {signal: AbortSignal.timeout(TIMEOUT_MS)});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    console.error(error);
    setState(find("#headline"), {state: "down", text: "The dashboard's own server does not answer: the figures are the last ones known."});
  } finally {
    isAsking = false;
    timer = setTimeout(ask, PERIOD_MS);
  }
}

build();
document.addEventListener("visibilitychange", ask);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.rebuild()));
ask();
