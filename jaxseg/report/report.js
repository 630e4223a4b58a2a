// The live part of a report: thresholds, what they do to the judged images, pictures.
// Names of files come in as text only (textContent), so they can hold anything.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const threshold = { ...data.thresholds };
const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const divide = (a, b, empty = NaN) => (b ? a / b : empty);
const decimals = (x) => (Number.isFinite(x) ? x.toFixed(4) : "undefined");
const whole = (x) => x.toLocaleString("en-US");
const sum = (values) => values.reduce((a, b) => a + b, 0);

// ---- counting -------------------------------------------------------------------

// {tp, fp, fn, tn} of score >= t
function countImages(scores, truths, t) {
  const found = { tp: 0, fp: 0, fn: 0, tn: 0 };
  scores.forEach((score, i) => {
    found[score >= t ? (truths[i] ? "tp" : "fp") : truths[i] ? "fn" : "tn"] += 1;
  });
  return found;
}

// The same of pixels; thresholds of masks are lower edges of bins.
function countPixels(histogram, t) {
  const [clean, defect] = histogram;
  const bin = Math.round(t * clean.length);
  return {
    tp: sum(defect.slice(bin)), fn: sum(defect.slice(0, bin)),
    fp: sum(clean.slice(bin)), tn: sum(clean.slice(0, bin)),
  };
}

// Quotients with the program's rule for nothing: undefined where there is no defect.
function ratios({ tp, fp, fn, tn }) {
  return {
    precision: divide(tp, tp + fp, fn ? 0 : NaN), recall: divide(tp, tp + fn),
    f1: divide(2 * tp, 2 * tp + fp + fn), iou: divide(tp, tp + fp + fn),
    accuracy: divide(tp + tn, tp + fp + fn + tn), false_rate: divide(fp, fp + tn),
  };
}

function decide(at) {
  const kind = data.image_kind;
  return kind ? Number(data.scores[at] >= threshold[kind]) : data.decisions[at];
}

// ---- rows of the table ----------------------------------------------------------

const RIGHT_OR_WRONG = ["wrong", "right"];
const OUTCOMES = { "1 0": "missed", "0 1": "false alarm", "1 1": "found", "0 0": "clean" };
const isBinary = data.kinds.length === 2;
const ORDER = isBinary ? ["missed", "false alarm", "found", "clean"] : RIGHT_OR_WRONG;
let histograms = null; // of the rows, Int32Array [rows, 2, bins]

function judgeRows() {
  const t = threshold[data.image_kind];
  data.rows.forEach((row, i) => {
    const truth = data.truths[row.at], decision = decide(row.at);
    row.decision = decision;
    row.truth = truth;
    row.score = data.scores[row.at];
    row.outcome = isBinary
      ? OUTCOMES[`${truth} ${decision}`] : RIGHT_OR_WRONG[Number(truth === decision)];
    // How far on the wrong side; negative where the decision is right.
    const distance = t === undefined ? row.score : Math.abs(row.score - t);
    row.error = truth === decision ? -distance : distance;
    if (histograms) judgePixels(row, i);
  });
}

function judgePixels(row, i) {
  const start = 2 * bins * i;
  const of = [0, bins].map((shift) =>
    [...histograms.subarray(start + shift, start + shift + bins)]);
  const { tp, fp, fn, tn } = countPixels(of, threshold.mask);
  row.missed = fn;
  row.alarmed = fp;
  row.dice = divide(2 * tp, 2 * tp + fp + fn, tn ? 1 : NaN);
}

async function readHistograms() {
  if (!data.histograms) return;
  const bytes = Uint8Array.from(atob(data.histograms), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  histograms = new Int32Array(await new Response(stream).arrayBuffer());
}

// ---- thresholds -----------------------------------------------------------------

// Every position of a slider is another outcome: the distinct scores, or the bins.
const stops = {}, bins = data.histogram ? data.histogram[0].length : 256;
function makeStops(kind) {
  if (kind === "mask") return Array.from({ length: bins + 1 }, (_, b) => b / bins);
  const found = [...data.scores, threshold[kind], noAlarm(data.scores)];
  return [...new Set(found)].sort((a, b) => a - b);
}

// A threshold above all scores.
const noAlarm = (scores) => (scores.some((score) => score >= 1) ? 1.0001 : 1);

function setThreshold(kind, value) {
  if (!Number.isFinite(value)) return;
  const t = Math.max(value, 0);
  threshold[kind] = kind === "mask" ? Math.round(Math.min(t, 1) * bins) / bins : t;
  update();
}

function update() {
  for (const kind of Object.keys(threshold)) {
    const place = stops[kind].findIndex((stop) => stop >= threshold[kind]);
    const slider = $(`#slider-${kind}`), field = $(`#threshold-${kind}`);
    slider.value = place < 0 ? stops[kind].length - 1 : place;
    slider.setAttribute("aria-valuetext", decimals(threshold[kind]));
    if (document.activeElement !== field) field.value = threshold[kind];
  }
  if (data.image_kind) {
    show("image", countImages(data.scores, data.truths, threshold[data.image_kind]));
    showCosts();
  }
  if (data.histogram) show("mask", countPixels(data.histogram, threshold.mask));
  judgeRows();
  drawGalleries();
  drawTable();
}

function show(level, counts) {
  const of = ratios(counts);
  for (const [name, value] of Object.entries(counts)) write(`${level}.${name}`, whole(value));
  for (const [name, value] of Object.entries(of)) write(`${level}.${name}`, decimals(value));
  place(`${level}.pr`, of.recall, of.precision);
  place(`${level}.roc`, of.false_rate, of.recall);
}

const write = (key, text) =>
  all(`[data-out="${key}"]`).forEach((element) => { element.textContent = text; });

function place(key, x, y) {
  all(`[data-mark="${key}"]`).forEach((mark) => {
    const [left, top, width, height] = mark.dataset.plot.split(" ").map(Number);
    const shown = Number.isFinite(x) && Number.isFinite(y);
    mark.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    mark.setAttribute("cx", left + width * x);
    mark.setAttribute("cy", top + height * (1 - y));
  });
}

// ---- costs ----------------------------------------------------------------------

const costOf = ({ fn, fp }) =>
  fn * Math.max(0, $("#cost-miss").valueAsNumber || 0) +
  fp * Math.max(0, $("#cost-alarm").valueAsNumber || 0);

// The threshold with the smallest cost, the highest of ties; in one pass over all scores.
function cheapest(scores, truths) {
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const counts = { fn: sum(truths), fp: 0 };
  let best = { cost: costOf(counts), t: noAlarm(scores) };
  order.forEach((at, i) => {
    if (truths[at]) counts.fn -= 1; else counts.fp += 1;
    const next = order[i + 1];
    if (next !== undefined && scores[next] === scores[at]) return;
    const cost = costOf(counts);
    if (cost < best.cost) best = { cost, t: scores[at] };
  });
  return best.t;
}

let cheapestThreshold = NaN;
function showCosts() {
  const source = data.val || data;
  cheapestThreshold = cheapest(source.scores, source.truths);
  const [now, then] = [threshold[data.image_kind], cheapestThreshold].map((t) =>
    countImages(data.scores, data.truths, t));
  write("cost.now", whole(costOf(now)));
  write("cost.best", decimals(cheapestThreshold));
  write("cost.then", whole(costOf(then)));
  write("cost.misses", whole(then.fn));
  write("cost.alarms", whole(then.fp));
}

// ---- pictures -------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const source = (base64) => `data:image/jpeg;base64,${base64}`;
function picture(row) {
  if (!row.thumbnail) return make("span", { className: "none", textContent: "no picture" });
  return make("img", { src: source(row.thumbnail), alt: "", loading: "lazy" });
}

function opener(row, list) {
  const button = make("button", { type: "button", className: "open" }, picture(row));
  button.setAttribute("aria-label", `Show ${row.name}`);
  button.addEventListener("click", () => openViewer(row, list));
  return button;
}

const shown = {}; // how many cards of a gallery
function drawGalleries() {
  all("[data-gallery]").forEach((gallery) => {
    const outcome = gallery.dataset.gallery;
    const rows = data.rows.filter((row) => row.outcome === outcome);
    rows.sort((a, b) => b.error - a.error);
    const limit = shown[outcome] || 12;
    const cards = rows.slice(0, limit).map((row) => make("li", {}, opener(row, rows),
      make("span", { className: "name", textContent: row.name, title: row.name }),
      make("span", { className: "score", textContent: `score ${decimals(row.score)}` })));
    gallery.replaceChildren(...cards);
    const more = $(`[data-more="${outcome}"]`);
    more.hidden = rows.length <= limit;
    more.textContent = `Show more of ${whole(rows.length)}`;
    write(`gallery.${outcome}`, whole(rows.length));
  });
}

// ---- the table of all images ----------------------------------------------------

const COLUMNS = {
  name: (row) => row.name, score: (row) => decimals(row.score),
  truth: (row) => data.kinds[row.truth], decision: (row) => data.kinds[row.decision],
  outcome: (row) => row.outcome,
  dice: (row) => (Number.isFinite(row.dice) ? decimals(row.dice) : ""),
  missed: (row) => (histograms ? whole(row.missed) : ""),
  alarmed: (row) => (histograms ? whole(row.alarmed) : ""),
};
const TEXTS = ["name", "truth", "decision", "outcome"];
const sorting = { column: "", falling: false };
let tableLimit = 25;

// Worst first: missed, false alarms, then the rest; the furthest from the threshold first.
const worst = (a, b) =>
  ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome) || b.error - a.error;

function compare(a, b) {
  const [x, y] = [a[sorting.column], b[sorting.column]];
  if (TEXTS.includes(sorting.column)) {
    const text = COLUMNS[sorting.column];
    return text(a).localeCompare(text(b), "en", { numeric: true });
  }
  return (Number.isFinite(x) ? x : Infinity) - (Number.isFinite(y) ? y : Infinity);
}

function drawTable() {
  const wanted = $("#find").value.toLowerCase(), outcome = $("#outcome").value;
  const rows = data.rows.filter((row) => (!outcome || row.outcome === outcome) &&
    row.name.toLowerCase().includes(wanted));
  rows.sort(sorting.column ? compare : worst);
  if (sorting.falling) rows.reverse();
  const names = all("#images th[data-column]").map((th) => th.dataset.column);
  const lines = rows.slice(0, tableLimit).map((row) => make("tr", {},
    make("td", {}, opener(row, rows)),
    ...names.map((name) => make("td", {
      textContent: COLUMNS[name](row),
      className: name === "outcome" ? row.outcome.replace(" ", "-") : `of-${name}`,
    }))));
  $("#images tbody").replaceChildren(...lines);
  $("#more-rows").hidden = rows.length <= tableLimit;
  write("table.count", `${whole(Math.min(tableLimit, rows.length))} of ${whole(rows.length)}`);
}

function sortBy(th) {
  const { column } = th.dataset;
  sorting.falling = sorting.column === column && !sorting.falling;
  sorting.column = column;
  all("#images th[data-column]").forEach((other) => other.removeAttribute("aria-sort"));
  th.setAttribute("aria-sort", sorting.falling ? "descending" : "ascending");
  drawTable();
}

// ---- one image, large -----------------------------------------------------------

const viewer = $("#viewer");
let viewed = { rows: [], at: 0 };

function openViewer(row, rows) {
  viewed = { rows, at: rows.indexOf(row) };
  drawViewer();
  if (!viewer.open) viewer.showModal();
}

function drawViewer() {
  const row = viewed.rows[viewed.at];
  const image = $("#viewer img"), large = row.overlay || row.thumbnail;
  image.hidden = !large;
  if (large) image.src = source(large);
  image.alt = `${row.name}: ${row.outcome}`;
  image.className = row.overlay ? "" : "small";
  $("#viewer h3").textContent = row.name;
  const facts = [`${viewed.at + 1} of ${viewed.rows.length}`, row.outcome,
    `score ${decimals(row.score)}`, `truth ${data.kinds[row.truth]}`,
    `decision ${data.kinds[row.decision]}`];
  if (Number.isFinite(row.dice)) facts.push(`Dice ${decimals(row.dice)}`);
  if (histograms) facts.push(`${whole(row.missed)} px missed, ${whole(row.alarmed)} px false`);
  $("#viewer p").textContent = facts.join("  ·  ");
}

function step(by) {
  viewed.at = (viewed.at + by + viewed.rows.length) % viewed.rows.length;
  drawViewer();
}

// ---- start ----------------------------------------------------------------------

function listen() {
  for (const kind of Object.keys(threshold)) {
    stops[kind] = makeStops(kind);
    const slider = $(`#slider-${kind}`), field = $(`#threshold-${kind}`);
    slider.max = stops[kind].length - 1;
    slider.addEventListener("input", () => setThreshold(kind, stops[kind][+slider.value]));
    field.addEventListener("input", () => setThreshold(kind, field.valueAsNumber));
    field.addEventListener("blur", update);
    $(`#stored-${kind}`).addEventListener("click", () =>
      setThreshold(kind, data.thresholds[kind]));
  }
  if (data.image_kind) {
    for (const id of ["#cost-miss", "#cost-alarm"]) $(id).addEventListener("input", showCosts);
    $("#use-cheapest").addEventListener("click", () =>
      setThreshold(data.image_kind, cheapestThreshold));
  }
  all("[data-more]").forEach((button) => button.addEventListener("click", () => {
    shown[button.dataset.more] = (shown[button.dataset.more] || 12) + 24;
    drawGalleries();
  }));
  all("#images th[data-column] button").forEach((button) =>
    button.addEventListener("click", () => sortBy(button.closest("th"))));
  $("#more-rows").addEventListener("click", () => { tableLimit += 100; drawTable(); });
  for (const id of ["#find", "#outcome"]) $(id).addEventListener("input", drawTable);
  $("#previous").addEventListener("click", () => step(-1));
  $("#next").addEventListener("click", () => step(1));
  $("#close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

listen();
readHistograms().finally(() => {
  update();
  document.body.classList.add("ready");
});
