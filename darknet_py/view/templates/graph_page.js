// The page: opening and closing blocks, panning and zooming, what an item is connected to; then details, search, the
// cost of each layer, keyboard, theme, and the address after '#'. graph_paths.js draws the gradient paths, graph_export.js saves the diagram.

const model = JSON.parse(document.getElementById("model").textContent);
const stage = document.getElementById("stage");
const scene = document.getElementById("scene");
const elements = new Map(); // item → its <g>
for (const element of scene.querySelectorAll(".item")) elements.set(element.id, element);
const opened = new Set([model.tree.root]);
const MARGIN = 16; // of graph_layout.py
const view = { x: 0, y: 0, k: 1 };
let placed = place(model.tree, opened);
stage.removeAttribute("viewBox"); // it fits the diagram to the window where scripts do not run

const isBlock = (item) => item in model.tree.plans;
const layersOf = (item) => (isBlock(item) ? model.blocks[item].layers : item === "input" ? [] : [model.names[item]]);
const itemOf = (layer) => (layer < 0 ? "input" : model.layers[layer].name);

function ancestors(item) {
  const found = [];
  for (let at = model.parents[item]; at && at !== model.tree.root; at = model.parents[at]) found.unshift(at);
  return found;
}

// The item itself, or the closed block that hides it.
function visible(item) {
  return ancestors(item).find((block) => !opened.has(block)) ?? item;
}

// --- drawing

// Places every open block that is visible, as {name: {corners: {child: [x, y]}, paths, size, bands: [[y, height], …]}}.
// The rules are in graph_layout.py; a plan holds them as formulas: [constant, variable, …], a variable i is added, ~i
// subtracted. The first variables are the children's sizes, each of `maxima` adds one, the largest of its formulas.
function place(tree, opened) {
  const placed = {};
  const sizeOf = (item) => {
    if (item === tree.root || (opened.has(item) && item in tree.plans)) return placeBlock(item);
    const [w, h] = tree.closed[item];
    return [w, h, w / 2, h / 2];
  };
  const placeBlock = (block) => {
    const plan = tree.plans[block], values = plan.children.flatMap(sizeOf);
    const value = ([constant, ...variables]) =>
      variables.reduce((sum, at) => sum + (at < 0 ? -values[~at] : values[at]), constant);
    for (const formulas of plan.maxima) values.push(Math.max(...formulas.map(value)));
    const [w, h, x, y] = plan.size.map(value);
    placed[block] = {
      corners: Object.fromEntries(plan.children.map((child, at) => [child, plan.corners[at].map(value)])),
      paths: plan.paths.map((path) =>
        path.map(([command, ...places]) => command + places.map(value).map(number).join(" ")).join("")),
      size: { w, h, x, y },
      bands: plan.bands.map((band) => band.map(value)),
    };
    return [w, h, x, y];
  };
  placeBlock(tree.root);
  return placed;
}

function number(value) {
  return String(Number(value.toFixed(2)));
}

function render() {
  placed = place(model.tree, opened);
  for (const [block, { corners, paths, size }] of Object.entries(placed)) {
    const group = block === model.tree.root ? scene : elements.get(block).querySelector(":scope > .body");
    for (const [child, [x, y]] of Object.entries(corners)) {
      elements.get(child).setAttribute("transform", `translate(${number(x)} ${number(y)})`);
    }
    const edges = group.querySelector(":scope > .edges").children;
    paths.forEach((path, at) => edges[at].setAttribute("d", path));
    if (group !== scene) {
      const [frame, stripe] = group.children;
      frame.setAttribute("width", size.w);
      frame.setAttribute("height", size.h);
      stripe.setAttribute("height", size.h);
      group.querySelector(":scope > .header .knob").setAttribute("transform", `translate(${size.w - 16} 13)`);
    }
  }
  for (const [item, element] of elements) {
    if (isBlock(item)) element.classList.toggle("open", opened.has(item));
  }
  renderBands();
}

function renderBands() {
  const { bands, size } = placed[model.tree.root];
  for (const row of scene.querySelectorAll(":scope > .row")) {
    const [top, height] = bands[row.dataset.row];
    const [band, ratio, sizes] = row.children, middle = top + Math.min(height, 64) / 2 - 2;
    band.setAttribute("y", number(top - 8));
    band.setAttribute("width", number(size.w - MARGIN));
    band.setAttribute("height", number(height + 16));
    ratio.setAttribute("y", number(middle));
    sizes.setAttribute("y", number(middle + 15));
  }
}

// Corner of a visible item in the diagram's coordinates, with its size.
function box(item) {
  let [x, y] = [0, 0];
  for (let at = item; model.parents[at]; at = model.parents[at]) {
    const [dx, dy] = placed[model.parents[at]].corners[at];
    x += dx;
    y += dy;
  }
  const [w, h] = placed[item] ? [placed[item].size.w, placed[item].size.h] : model.tree.closed[item];
  return { x, y, w, h };
}

// --- opening and closing; what was touched stays where it is on the screen

function toggle(block, deep = false) {
  const before = box(block);
  if (opened.has(block)) {
    for (const inner of [block, ...descendants(block)]) opened.delete(inner);
  } else {
    opened.add(block);
    if (deep) for (const inner of descendants(block)) opened.add(inner);
  }
  render();
  const after = box(block);
  moveTo(view.x + (before.x - after.x) * view.k, view.y + (before.y - after.y) * view.k, view.k);
  changed();
}

function descendants(block) {
  return Object.keys(model.tree.plans).filter((inner) => inner !== block && ancestors(inner).includes(block));
}

function openAll() {
  for (const block of Object.keys(model.tree.plans)) opened.add(block);
  render();
  fit();
  changed();
}

function closeAll() {
  opened.clear();
  opened.add(model.tree.root);
  render();
  fit();
  changed();
}

function reveal(item) {
  const hidden = ancestors(item).filter((block) => !opened.has(block));
  if (hidden.length) {
    for (const block of hidden) opened.add(block);
    render();
    changed();
  }
}

// --- panning and zooming

function moveTo(x, y, k) {
  Object.assign(view, { x, y, k });
  scene.setAttribute("transform", `translate(${number(x)} ${number(y)}) scale(${Number(k.toFixed(4))})`);
}

function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const k = Math.min(Math.max(view.k * factor, 0.03), 6);
  moveTo(x - ((x - view.x) * k) / view.k, y - ((y - view.y) * k) / view.k, k);
}

function fit() {
  const { w, h } = placed[model.tree.root].size;
  const k = Math.min(stage.clientWidth / w, stage.clientHeight / h, 1.6);
  moveTo((stage.clientWidth - w * k) / 2, Math.max((stage.clientHeight - h * k) / 2, 0), k);
}

function center(item, least = 0) {
  const { x, y, w, h } = box(item), k = Math.max(view.k, least);
  const top = h * k > stage.clientHeight ? stage.clientHeight * 0.1 : stage.clientHeight / 2 - (h * k) / 2;
  moveTo(stage.clientWidth / 2 - (x + w / 2) * k, top - y * k, k);
}

function bringIntoSight(item) {
  const { x, y, w, h } = box(item);
  const [left, top, right, bottom] = [x, y, x + w, y + Math.min(h, 80)].map(
    (value, at) => value * view.k + (at % 2 ? view.y : view.x),
  );
  if (left < 0 || top < 0 || right > stage.clientWidth || bottom > stage.clientHeight) center(item, 0.7);
}

const pointers = new Map();
let dragged = false;

stage.addEventListener("pointerdown", (event) => {
  if (!pointers.size) dragged = false;
  pointers.set(event.pointerId, event);
});
window.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  if (!dragged && Math.hypot(dx, dy) < 4) return;
  dragged = true;
  stage.classList.add("dragging");
  if (pointers.size === 2) pinch(event, before);
  else moveTo(view.x + dx, view.y + dy, view.k);
  pointers.set(event.pointerId, event);
});
for (const kind of ["pointerup", "pointercancel"]) {
  window.addEventListener(kind, (event) => {
    pointers.delete(event.pointerId);
    stage.classList.remove("dragging");
  });
}
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX - left, event.clientY - top);
}, { passive: false });

function pinch(event, before) {
  const [other] = [...pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
  const distance = (at) => Math.hypot(at.clientX - other.clientX, at.clientY - other.clientY);
  const { left, top } = stage.getBoundingClientRect();
  zoom(distance(event) / (distance(before) || 1), other.clientX - left, other.clientY - top);
}

// --- what an item is connected to

function light(item) {
  for (const element of scene.querySelectorAll(".from,.to,.lit")) element.classList.remove("from", "to", "lit");
  for (const edge of scene.querySelectorAll(".edge[marker-end]")) edge.setAttribute("marker-end", "url(#arrow)");
  if (pathsShown && selected) return; // the paths take the place of the neighbors
  if (!item || !elements.has(item)) return;
  elements.get(item).classList.add("lit");
  const parent = model.parents[item];
  const group = parent === model.tree.root ? scene : elements.get(parent).querySelector(":scope > .body");
  const edges = group.querySelector(":scope > .edges").children;
  model.edges[parent].forEach(([from, to], at) => {
    const way = to === item ? "from" : from === item ? "to" : "";
    if (!way) return;
    edges[at].classList.add(way);
    if (edges[at].hasAttribute("marker-end")) edges[at].setAttribute("marker-end", `url(#arrow-${way})`);
  });
  const mine = new Set(layersOf(item));
  for (const layer of mine) {
    for (const source of model.layers[layer].sources) if (!mine.has(source)) mark(itemOf(source), "from");
    for (const reader of model.layers[layer].readers) if (!mine.has(reader)) mark(itemOf(reader), "to");
  }
}

function mark(item, way) {
  elements.get(visible(item))?.classList.add(way);
}

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

// --- values

function short(value) {
  for (const [limit, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (value >= limit * 0.9995) return Number((value / limit).toPrecision(3)) + unit;
  }
  return String(Number(value.toPrecision(3)));
}
const bytes = (value) => (value >= 2 ** 20 ? `${(value / 2 ** 20).toPrecision(3)} MiB` : `${(value / 1024).toPrecision(3)} KiB`);
const percent = (part, whole) => (part && whole ? ` (${((100 * part) / whole).toFixed(1)} %)` : "");

function metrics(item) {
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

const placeOf = (item) =>
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
  for (const [name, color] of model.legend) {
    legend.append(make("span", {}, make("i", { style: `background:${color}` }), name));
  }
  const keys = make("table", { class: "keys" });
  for (const [key, what] of KEYS) keys.append(make("tr", {}, make("th", {}, make("kbd", {}, key)), make("td", {}, what)));
  return [
    make("h2", {}, model.title), table(model.facts), make("h3", {}, "Colors"), legend,
    make("p", { class: "note" }, "The bar along the lower edge: BFLOPs, against the largest layer or stage."),
    make("h3", {}, "Keys"), keys,
  ];
}

function details(item) {
  const parts = [make("h2", {}, title(item)), make("p", { class: "note" }, placeOf(item)), table(metrics(item))];
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
  const layer = pickedLayer(item);
  if (!isBlock(item)) parts.push(...pathDetails(layer));
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
    byId("live").textContent = `${title(item)}, ${placeOf(item)}`;
  }
  light(item);
  drawPaths();
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
  tip.replaceChildren(make("b", {}, title(item)), make("span", {}, ` ${placeOf(item)}`), table(metrics(item)));
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
  ["/", "search; Enter: next, Shift+Enter: previous"], ["+ −", "zoom"], ["0", "show the whole network"],
  ["e c", "open, close everything"], ["g", "gradient paths of the picked layer"], ["t", "light or dark"],
  ...(Object.keys(maps).length ? [["m", "activations on the items"]] : []),
];
const ACTIONS = {
  ArrowUp: () => step("up"), ArrowDown: () => step("down"),
  ArrowLeft: () => step("previous"), ArrowRight: () => step("next"),
  Enter: (event) => selected && isBlock(selected) && (toggle(selected, event.shiftKey), showPanel()),
  Escape: () => select(null), "/": () => search.focus(), "+": () => zoom(1.25), "=": () => zoom(1.25),
  "-": () => zoom(0.8), 0: fit, e: openAll, c: closeAll, g: togglePaths, t: theme, m: () => scene.classList.toggle("mapped"),
};
ACTIONS[" "] = ACTIONS.Enter;
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,select,button")) return;
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action(event);
});
for (const [id, action] of Object.entries({ in: () => zoom(1.25), out: () => zoom(0.8), fit, open: openAll, close: closeAll, paths: togglePaths, svg: saveSvg, png: savePng, theme })) {
  byId(id).addEventListener("click", action);
}

// --- activations on the items

function addMaps() {
  for (const [item, element] of elements) {
    const layer = item === "input" ? -1 : isBlock(item) ? model.blocks[item].output : model.names[item];
    const host = isBlock(item) ? element.querySelector(":scope > .card") : element;
    const [w, h] = model.tree.closed[item];
    if (!maps[layer] || h < 40) continue;
    const map = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const side = h - 10; // the first tile of the image: the mean over the channels
    for (const [name, value] of Object.entries({ x: w - side - 5, y: 5, width: side, height: side, class: "map", viewBox: model.mapsTile }))
      map.setAttribute(name, value);
    const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
    image.setAttribute("href", maps[layer]);
    map.append(image);
    host.append(map);
  }
  scene.classList.add("mapped");
}

// --- the address: #open=all, #open=24,60 (blocks with these layers), #layer=24, #paths=24, #theme=dark, #find=3x3

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  if (address.get("theme")) document.documentElement.dataset.theme = address.get("theme") === "dark" ? "dark" : "light";
  const open = address.get("open");
  if (open === "all") for (const block of Object.keys(model.tree.plans)) opened.add(block);
  else if (open) for (const layer of open.split(",")) for (const block of ancestors(model.layers[+layer]?.name)) opened.add(block);
  if (open) render();
  fit();
  if (address.has("paths") !== pathsShown) togglePaths();
  const layer = model.layers[Number(address.get("layer") ?? address.get("paths") ?? NaN)];
  select(layer ? layer.name : null, true);
  if (address.get("find")) {
    search.value = address.get("find");
    find();
  }
}

function changed() {
  markProfile();
  light(selected && visible(selected));
  drawPaths();
}

drawProfile();
readAddress();
window.addEventListener("hashchange", readAddress);
window.addEventListener("resize", fit);
if (Object.keys(maps).length) requestAnimationFrame(() => setTimeout(addMaps));
