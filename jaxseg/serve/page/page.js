"use strict";
// Texts reach the page as text only: names of files and classes can hold anything.

const byId = (id) => document.getElementById(id);
const AT_ONCE = 4; // requests; the server puts those that wait into one batch
const PAUSE = 200; // ms without a move of the slider, then sizes are measured again
const FOUND = [255, 64, 129];
const VIEWS = ["result", "score", "photo"];

let model = null;
let items = []; // {name, answer, photo, levels, mask, row}
let chosen = null;
let view = "result";
let thresholds = {}; // by kind, as the sliders stand
let number = 0; // of the last question for sizes
let timer = null;

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function explain(name, problem) {
  const lines = [name, `expected: ${problem.expected}`, `found: ${problem.found}`, `fix: ${problem.fix}`];
  byId("problem").textContent = lines.join("\n");
  byId("problem").hidden = false;
}

async function ask(path, body) {
  for (;;) {
    let reply;
    try {
      const type = body.type.startsWith("image/") ? body.type : "image/unknown";
      reply = await fetch(path, { method: "POST", body, headers: { "Content-Type": type } });
    } catch {
      throw { expected: "an answer of the server", found: "none", fix: "is scripts/serve.py still running?" };
    }
    if (reply.status === 503) {
      await new Promise((go) => setTimeout(go, 1000 * Number(reply.headers.get("Retry-After"))));
      continue;
    }
    const answer = await reply.json();
    if (!reply.ok) throw answer;
    return answer;
  }
}

async function draw(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

function pixels(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

async function predict(file) {
  const item = { name: file.name, answer: null };
  const button = element("button", file.name);
  button.addEventListener("click", () => choose(item));
  item.row = element("tr", "");
  for (const cell of [button, "waiting", ""]) {
    const td = element("td", "");
    td.append(cell);
    item.row.append(td);
  }
  button.disabled = true;
  byId("list").prepend(item.row);
  byId("images").hidden = false;
  return async () => {
    try {
      if (file.size > model.max_bytes) {
        const found = `${file.size.toLocaleString("en")} bytes`;
        throw { expected: `at most ${model.max_bytes.toLocaleString("en")} bytes`, found, fix: "a smaller image" };
      }
      const answer = await ask("/predict?pictures=1", file);
      item.photo = await draw(answer.photo);
      if (answer.probabilities) {
        item.map = toBlob(answer.probabilities);
        const rgba = pixels(await draw(answer.probabilities));
        item.levels = rgba.filter((_, i) => i % 4 === 0);
      }
      if (answer.mask) item.mask = await draw(answer.mask);
      for (const name of ["photo", "probabilities", "mask"]) delete answer[name];
      item.answer = answer;
      items.push(item);
      button.disabled = false;
      list(item);
      if (!chosen || !byId("result").contains(document.activeElement)) choose(item);
    } catch (problem) {
      if (!problem.expected) throw problem;
      item.row.children[1].textContent = "refused";
      explain(file.name, problem);
    }
  };
}

// A data URL as bytes; `fetch` of it is not allowed by the page's policy.
function toBlob(url) {
  const text = atob(url.slice(url.indexOf(",") + 1));
  return new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

async function predictAll(files) {
  byId("problem").hidden = true;
  const waiting = await Promise.all([...files].map(predict));
  const work = async () => {
    while (waiting.length) await waiting.shift()();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

function threshold(kind) {
  return thresholds[kind] ?? model.thresholds[kind];
}

// Which threshold decides about the image: its own, or else that of its pixels.
function deciding(answer) {
  if (answer.threshold === null) return null;
  return answer.image_probabilities ? "image" : "mask";
}

function decide(answer) {
  const kind = deciding(answer);
  if (kind === null) return [answer.decision, answer.found];
  const found = answer.score >= threshold(kind);
  return [model.decisions[Number(found)], found];
}

function list(item) {
  const [decision] = decide(item.answer);
  item.row.children[1].textContent = decision;
  item.row.children[2].textContent = item.answer.score.toFixed(3);
}

function choose(item) {
  chosen = item;
  for (const other of items) other.row.classList.toggle("chosen", other === item);
  byId("result").hidden = false;
  byId("name").textContent = item.name;
  update();
  measure();
}

function update() {
  const answer = chosen.answer;
  const [decision, found] = decide(answer);
  byId("decision").textContent = decision;
  byId("decision").classList.toggle("found", found);
  const kind = deciding(answer);
  const against = kind ? ` ${found ? "≥" : "<"} threshold ${threshold(kind).toFixed(3)}` : "";
  byId("score").textContent = `score ${answer.score.toFixed(3)}${against}; ${answer.width} x ${answer.height} pixels`;
  items.forEach(list);
  paint();
}

function paint() {
  const { photo, levels, mask } = chosen;
  const canvas = byId("canvas");
  [canvas.width, canvas.height] = [photo.width, photo.height];
  canvas.classList.toggle("small", photo.width < 500);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0);
  if (view === "photo") return;
  if (mask) {
    context.globalAlpha = 0.6;
    context.drawImage(mask, 0, 0);
    context.globalAlpha = 1;
  }
  if (!levels) return;
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const data = image.data;
  const limit = 255 * threshold("mask");
  for (let i = 0; i < levels.length; i++) {
    if (view === "score") {
      const glow = levels[i] / 255;
      for (let c = 0; c < 3; c++) data[4 * i + c] = 0.25 * data[4 * i + c] * (1 - glow) + 255 * glow;
    } else if (levels[i] >= limit) {
      for (let c = 0; c < 3; c++) data[4 * i + c] = 0.3 * data[4 * i + c] + 0.7 * FOUND[c];
    }
  }
  context.putImageData(image, 0, 0);
}

function measure() {
  clearTimeout(timer);
  const item = chosen;
  const mine = ++number;
  if (!model.has_masks) return;
  const moved = item.map && threshold("mask") !== model.thresholds.mask;
  if (!moved) return tell(item.answer, 1);
  byId("summary").textContent = "measuring ...";
  timer = setTimeout(async () => {
    try {
      const scale = item.answer.scale;
      const found = await ask(`/measure?threshold=${threshold("mask")}&scale=${scale}`, item.map);
      if (mine === number) tell(found, scale);
    } catch (problem) {
      if (!problem.expected) throw problem;
      explain(item.name, problem);
    }
  }, PAUSE);
}

function tell(found, scale) {
  const texts = model.classes.slice(1).map((name) => {
    const share = (100 * found.share[name]).toFixed(2);
    return `${found.num_components[name]} x ${name}, ${share} % of the image`;
  });
  byId("summary").textContent = texts.join("; ");
  const several = model.classes.length > 2;
  const columns = [...(several ? ["class"] : []), "length", "mean width", "max width", "area", "score"];
  const head = element("tr", "");
  for (const name of columns) head.append(element("th", name, { scope: "col" }));
  byId("components").tHead.replaceChildren(...(found.components.length ? [head] : []));
  byId("components").tBodies[0].replaceChildren(
    ...found.components.map((one) => {
      const row = element("tr", "");
      const cells = [
        ...(several ? [one.class] : []),
        one.length.toFixed(0), one.mean_width.toFixed(1), one.max_width.toFixed(1),
        one.area.toFixed(0), one.score.toFixed(2),
      ];
      row.append(...cells.map((text) => element("td", text)));
      const show = (is) => () => {
        row.classList.toggle("chosen", is);
        outline(is ? one.box : null);
      };
      row.addEventListener("mouseenter", show(true));
      row.addEventListener("mouseleave", show(false));
      return row;
    }),
  );
  const counted = Object.values(found.num_components).reduce((a, b) => a + b, 0);
  const notes = [];
  if (found.components.length) notes.push("in pixels of the image");
  if (scale > 1) notes.push(`measured on a map of 1/${scale} of its size`);
  if (counted > found.components.length) notes.push("too many pieces to measure each");
  byId("more").textContent = notes.join("; ");
}

function outline(box) {
  paint();
  if (!box) return;
  const [top, left, bottom, right] = box.map((side) => side / chosen.answer.scale);
  const context = byId("canvas").getContext("2d");
  const line = Math.max(1, byId("canvas").width / 300);
  context.lineWidth = line;
  context.strokeStyle = "#ffeb3b";
  context.strokeRect(left - 2 * line, top - 2 * line, right - left + 4 * line, bottom - top + 4 * line);
}

function addSlider(kind, text) {
  const stored = model.thresholds[kind];
  const part = element("div", "", { class: "slider" });
  const label = element("label", "", { for: `${kind}-threshold` });
  const value = element("output", stored.toFixed(3), { id: `${kind}-value` });
  label.append(element("span", text), value);
  const input = element("input", "", { id: `${kind}-threshold`, type: "range", min: 0, max: 1, step: 0.001 });
  input.value = stored;
  const reset = element("button", `back to ${stored.toFixed(3)}, chosen in validation`);
  reset.hidden = true;
  const set = (number) => {
    thresholds[kind] = number;
    value.textContent = number.toFixed(3);
    reset.hidden = number === stored;
    update();
    measure();
  };
  input.addEventListener("input", () => set(Number(input.value)));
  reset.addEventListener("click", () => {
    input.value = stored;
    set(stored);
  });
  part.append(label, input, reset);
  byId("sliders").append(part);
}

function addViews() {
  const kinds = model.classes.length === 2 ? VIEWS : ["result", "photo"];
  for (const kind of kinds) {
    const label = element("label", "");
    const input = element("input", "", { type: "radio", name: "view", value: kind });
    input.checked = kind === view;
    input.addEventListener("change", () => {
      view = kind;
      paint();
    });
    label.append(input, ` ${kind}`);
    byId("shown").append(label);
  }
}

function addLegend(names, colors) {
  names.forEach((name, i) => {
    const line = element("li", "");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const side of ["width", "height"]) square.setAttribute(side, "100%");
    square.setAttribute("fill", colors[i]);
    svg.append(square);
    line.append(svg, name);
    byId("legend").append(line);
  });
}

function watch() {
  const drop = byId("drop");
  byId("files").addEventListener("change", (event) => {
    predictAll(event.target.files).then(() => (event.target.value = ""));
  });
  for (const [name, is] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", is);
      if (name === "drop") predictAll(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => predictAll(event.clipboardData.files));
}

async function start() {
  model = await (await fetch("/model")).json();
  byId("model").textContent = model.description;
  const { mask, image } = model.thresholds;
  if (model.has_masks && mask !== undefined) addSlider("mask", "threshold of pixels");
  if (image !== undefined) addSlider("image", "threshold of the image");
  if (model.has_masks) {
    addViews();
    if (model.classes.length === 2) addLegend([`found: ${model.classes[1]}`], [`rgb(${FOUND})`]);
    else addLegend(model.classes.slice(1), model.colors.slice(1));
  }
  watch();
}

start();
