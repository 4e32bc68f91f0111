// Everything around the picture: details, search, cost profile, keyboard, theme, the address after '#'.
"use strict";

const byId = (id) => document.getElementById(id);
const panel = byId("panel"), tip = byId("tip"), search = byId("search"), metric = byId("metric");
const maps = byId("maps") ? JSON.parse(byId("maps").textContent) : {};
let selected = null, matches = [], matchAt = -1;

// Every text goes in as text, never as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// --- figures

function short(value) {
  for (const [limit, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (value >= limit * 0.9995) return Number((value / limit).toPrecision(3)) + unit;
  }
  return String(Number(value.toPrecision(3)));
}
const bytes = (value) => (value >= 2 ** 20 ? `${(value / 2 ** 20).toPrecision(3)} MiB` : `${(value / 1024).toPrecision(3)} KiB`);
const percent = (part, whole) => (part && whole ? ` (${((100 * part) / whole).toFixed(1)} %)` : "");

function figures(item) {
  const layers = layersOf(item).map((layer) => model.layers[layer]);
  const sum = (key) => layers.reduce((total, layer) => total + layer[key], 0);
  const last = isBlock(item) ? model.layers[model.blocks[item].output] : layers[0];
  const found = [];
  if (isBlock(item)) found.push(["layers", `${layers.length}`]);
  if (!isBlock(item)) found.push(["input", last.inputs.join(", ")]);
  found.push(
    ["output", last.output],
    ["parameters", short(sum("parameters")) + percent(sum("parameters"), model.totals.parameters)],
    ["BFLOPs", short(sum("bflops")) + percent(sum("bflops"), model.totals.bflops)],
    ["CIO", `${short(sum("cio"))} values` + percent(sum("cio"), model.totals.cio)],
    ["receptive field", `${last.field} pixels`],
    ["activations held", bytes(Math.max(...layers.map((layer) => layer.live)))],
  );
  return found;
}

function title(item) {
  if (item === "input") return "input";
  return isBlock(item) ? model.blocks[item].title : model.layers[model.names[item]].title;
}

const place_of = (item) =>
  item === "input" ? model.input : isBlock(item) ? model.blocks[item].place : `layer ${model.names[item]}`;

function table(rows) {
  return make("table", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", {}, name), make("td", {}, value))));
}

// --- the panel at the side

function showPanel() {
  if (selected && selected !== "input") panel.replaceChildren(...details(selected));
  else panel.replaceChildren(...overview());
  panel.scrollTop = 0;
}

function overview() {
  const legend = make("div", { class: "legend" });
  for (const [name, colour] of model.legend) {
    legend.append(make("span", {}, make("i", { style: `background:${colour}` }), name));
  }
  const keys = make("table", { class: "keys" });
  for (const [key, what] of KEYS) keys.append(make("tr", {}, make("th", {}, make("kbd", {}, key)), make("td", {}, what)));
  return [
    make("h2", {}, model.title), table(model.facts), make("h3", {}, "Colours"), legend,
    make("p", { class: "note" }, "The bar along the lower edge: BFLOPs, against the largest layer or stage."),
    make("h3", {}, "Keys"), keys,
  ];
}

function details(item) {
  const parts = [make("h2", {}, title(item)), make("p", { class: "note" }, place_of(item)), table(figures(item))];
  if (isBlock(item)) {
    const label = opened.has(item) ? "Close" : "Open";
    parts.push(make("div", { class: "buttons" },
      make("button", { onclick: () => { toggle(item); showPanel(); } }, label),
      make("button", { onclick: () => { if (opened.has(item)) toggle(item); toggle(item, true); showPanel(); } }, "Open all in it")));
  }
  const layers = layersOf(item), mine = new Set(layers);
  for (const [name, key] of [["Reads", "sources"], ["Read by", "readers"]]) {
    const others = [...new Set(layers.flatMap((layer) => model.layers[layer][key]))].filter((layer) => !mine.has(layer));
    if (others.length) parts.push(make("h3", {}, name), make("div", { class: "links" }, ...others.map(link)));
  }
  const layer = isBlock(item) ? model.blocks[item].output : layers[0];
  if (maps[layer]) {
    parts.push(make("h3", {}, isBlock(item) ? `Activations of layer ${layer}` : "Activations"),
      make("img", { src: maps[layer], alt: `activation maps of layer ${layer}` }),
      make("p", { class: "note" }, model.mapsNote));
  }
  if (!isBlock(item)) parts.push(make("h3", {}, `cfg, line ${model.layers[layer].line}`), make("pre", {}, model.layers[layer].cfg));
  return parts;
}

function link(layer) {
  const item = itemOf(layer);
  return make("button", { class: "link", onclick: () => select(item, true) },
    layer < 0 ? "input" : `${layer} ${model.layers[layer].title}`);
}

// --- selecting

function select(item, show = false) {
  if (selected) elements.get(selected)?.classList.remove("selected");
  selected = item;
  if (item) {
    reveal(item);
    elements.get(item).classList.add("selected");
    if (show) bringIntoSight(item);
    byId("live").textContent = `${title(item)}, ${place_of(item)}`;
  }
  light(item);
  showPanel();
  markProfile();
}

function itemAt(event) {
  return event.target.closest?.(".item")?.id ?? null;
}

stage.addEventListener("click", (event) => {
  if (dragged) return;
  const item = itemAt(event);
  if (event.target.closest(".knob")) toggle(item, event.shiftKey);
  select(item);
});
stage.addEventListener("dblclick", (event) => {
  const item = itemAt(event);
  if (item && isBlock(item) && !event.target.closest(".knob")) toggle(item, event.shiftKey);
});
stage.addEventListener("pointermove", (event) => {
  const item = pointers.size ? null : itemAt(event);
  if ((item ?? "") !== tip.dataset.item) showTip(item);
  if (item) moveTip(event);
});
stage.addEventListener("pointerleave", () => showTip(null));

function showTip(item) {
  tip.dataset.item = item ?? "";
  tip.hidden = !item || item === "input";
  light(item ?? selected);
  markProfile(item);
  if (tip.hidden) return;
  tip.replaceChildren(make("b", {}, title(item)), make("span", {}, ` ${place_of(item)}`), table(figures(item)));
}

function moveTip(event) {
  const right = event.clientX + 16 + tip.offsetWidth > innerWidth, low = event.clientY + 16 + tip.offsetHeight > innerHeight;
  tip.style.left = `${right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16}px`;
  tip.style.top = `${low ? Math.max(event.clientY - 16 - tip.offsetHeight, 4) : event.clientY + 16}px`;
}

// --- search

function find() {
  const words = search.value.toLowerCase().replaceAll("×", "x").split(/\s+/).filter(Boolean);
  matches = words.length ? model.layers.filter((layer) => words.every((word) => text(layer).includes(word))) : [];
  matchAt = -1;
  showMatches();
}

function text(layer) {
  layer.text ??= ` #${layer.index} ${layer.title} ${layer.type} ${layer.output} ${layer.cfg}`.toLowerCase().replaceAll("×", "x");
  return layer.text;
}

function showMatches() {
  scene.classList.toggle("searching", search.value.trim() !== "");
  for (const element of scene.querySelectorAll(".match")) element.classList.remove("match");
  for (const layer of matches) {
    for (const item of [layer.name, ...ancestors(layer.name)]) elements.get(item).classList.add("match");
  }
  byId("found").textContent = search.value.trim() ? `${matchAt < 0 ? "" : `${matchAt + 1} of `}${matches.length}` : "";
  const indices = new Set(matches.map((layer) => layer.index));
  for (const bar of bars()) bar.classList.toggle("match", indices.has(+bar.dataset.layer));
}

function nextMatch(step) {
  if (!matches.length) return;
  matchAt = (matchAt + step + matches.length) % matches.length;
  select(matches[matchAt].name, true);
  showMatches();
}

search.addEventListener("input", find);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") nextMatch(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") {
    search.value = "";
    find();
    stage.focus();
  }
});

// --- what each layer costs, in cfg order

function drawProfile() {
  const key = metric.value, most = Math.max(...model.layers.map((layer) => layer[key])) || 1;
  const found = model.layers.map((layer) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = Math.max((layer[key] / most) * 100, layer[key] ? 1 : 0);
    for (const [name, value] of Object.entries({ x: layer.index + 0.08, width: 0.84, y: 100 - height, height })) bar.setAttribute(name, value);
    bar.setAttribute("class", `g-${layer.look}`);
    bar.dataset.layer = layer.index;
    return bar;
  });
  byId("profile").setAttribute("viewBox", `0 0 ${model.layers.length} 100`);
  const here = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  here.setAttribute("class", "here");
  here.setAttribute("height", 100);
  byId("profile").replaceChildren(here, ...found);
  const largest = model.layers.find((layer) => layer[key] === most);
  byId("largest").textContent = largest ? `largest: ${key === "live" ? bytes(most) : short(most)}, layer ${largest.index}` : "";
  markProfile();
}

function markProfile(item = selected) {
  const layers = item ? layersOf(item) : [], mine = new Set(layers);
  byId("profile").classList.toggle("marking", layers.length > 0);
  for (const bar of bars()) bar.classList.toggle("on", mine.has(+bar.dataset.layer));
  const here = byId("profile").firstChild;
  here.setAttribute("x", Math.min(...layers, model.layers.length));
  here.setAttribute("width", layers.length ? Math.max(...layers) - Math.min(...layers) + 1 : 0);
}

const bars = () => byId("profile").querySelectorAll("[data-layer]");

function layerUnder(event) {
  const { left, width } = byId("profile").getBoundingClientRect();
  return Math.min(Math.max(Math.floor(((event.clientX - left) / width) * model.layers.length), 0), model.layers.length - 1);
}
byId("profile").addEventListener("click", (event) => select(itemOf(layerUnder(event)), true));
byId("profile").addEventListener("pointermove", (event) => {
  const item = itemOf(layerUnder(event));
  if (item !== tip.dataset.item) {
    showTip(item);
    light(visible(item));
  }
  moveTip(event);
});
byId("profile").addEventListener("pointerleave", () => showTip(null));
metric.addEventListener("change", drawProfile);

// --- keyboard

function step(way) {
  const shown = [...elements.keys()].filter((item) => visible(item) === item && !opened.has(item));
  if (!selected) return select(shown[0], true);
  if (way === "next" || way === "previous") {
    const at = shown.indexOf(selected) + (way === "next" ? 1 : -1);
    return select(shown[Math.min(Math.max(at, 0), shown.length - 1)], true);
  }
  const key = way === "down" ? "readers" : "sources", mine = new Set(layersOf(selected));
  const layers = selected === "input" ? model.inputReaders : [...mine].flatMap((layer) => model.layers[layer][key]);
  const other = layers.find((layer) => !mine.has(layer));
  if (other !== undefined) select(visible(itemOf(other)), true);
}

function theme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
}

const KEYS = [
  ["↑ ↓", "along the connections"], ["← →", "through what is shown, in order"],
  ["Enter", "open or close the block (Shift: all in it)"], ["Esc", "back to the overview"],
  ["/", "search; Enter: next, Shift+Enter: previous"], ["+ −", "zoom"], ["0", "the whole picture"],
  ["e c", "open, close everything"], ["t", "light or dark"],
  ...(Object.keys(maps).length ? [["m", "activations on the items"]] : []),
];
const ACTIONS = {
  ArrowUp: () => step("up"), ArrowDown: () => step("down"),
  ArrowLeft: () => step("previous"), ArrowRight: () => step("next"),
  Enter: (event) => selected && isBlock(selected) && (toggle(selected, event.shiftKey), showPanel()),
  Escape: () => select(null), "/": () => search.focus(), "+": () => zoom(1.25), "=": () => zoom(1.25),
  "-": () => zoom(0.8), 0: fit, e: openAll, c: closeAll, t: theme, m: () => scene.classList.toggle("mapped"),
};
ACTIONS[" "] = ACTIONS.Enter;
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,select,button")) return;
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action(event);
});
for (const [id, action] of Object.entries({ in: () => zoom(1.25), out: () => zoom(0.8), fit, open: openAll, close: closeAll, theme })) {
  byId(id).addEventListener("click", action);
}

// --- activations on the items

function addMaps() {
  for (const [item, element] of elements) {
    const layer = item === "input" ? -1 : isBlock(item) ? model.blocks[item].output : model.names[item];
    const host = isBlock(item) ? element.querySelector(":scope > .card") : element;
    const [w, h] = model.tree.closed[item];
    if (!maps[layer] || h < 40) continue;
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const side = h - 10; // the first tile of the picture: the mean over the channels
    for (const [name, value] of Object.entries({ x: w - side - 5, y: 5, width: side, height: side, class: "map", viewBox: model.mapsTile })) picture.setAttribute(name, value);
    const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
    image.setAttribute("href", maps[layer]);
    picture.append(image);
    host.append(picture);
  }
  scene.classList.add("mapped");
}

// --- the address: #open=all, #open=24,60 (blocks with these layers), #layer=24, #theme=dark, #find=3x3

function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (wanted.get("theme")) document.documentElement.dataset.theme = wanted.get("theme") === "dark" ? "dark" : "light";
  const open = wanted.get("open");
  if (open === "all") for (const block of Object.keys(model.tree.grids)) opened.add(block);
  else if (open) for (const layer of open.split(",")) for (const block of ancestors(model.layers[+layer]?.name)) opened.add(block);
  if (open) render();
  fit();
  const layer = model.layers[Number(wanted.get("layer") ?? NaN)];
  select(layer ? layer.name : null, true);
  if (wanted.get("find")) {
    search.value = wanted.get("find");
    find();
  }
}

function changed() {
  markProfile();
  light(selected && visible(selected));
}

drawProfile();
follow();
window.addEventListener("hashchange", follow);
window.addEventListener("resize", fit);
if (Object.keys(maps).length) requestAnimationFrame(() => setTimeout(addMaps));
