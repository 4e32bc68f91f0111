// What users do with the page: seeing what an item is connected to, picking, search, the cost of each layer, keyboard, theme,
// and the address after '#'. It comes last, as it starts the page.

const byId = (id) => document.getElementById(id);
const panel = byId("panel"), tip = byId("tip"), search = byId("search"), metric = byId("metric");
const maps = byId("maps") ? JSON.parse(byId("maps").textContent) : {};
const values = byId("values") ? JSON.parse(byId("values").textContent) : { weights: {}, activations: {} };
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
    for (const text of host.querySelectorAll(":scope > text:not([text-anchor])")) fitText(text, w - side - 10 - text.getAttribute("x"));
  }
  scene.classList.add("mapped");
}

// Makes a text smaller where it would reach under the map. Texts of closed blocks are not laid out, so a canvas measures.
function fitText(text, width) {
  const { fontFamily, fontWeight } = getComputedStyle(text), size = +text.getAttribute("font-size");
  measure.font = `${fontWeight} ${size}px ${fontFamily}`;
  const wide = measure.measureText(text.textContent).width;
  if (wide > width) text.setAttribute("font-size", number((size * width) / wide));
}
const measure = document.createElement("canvas").getContext("2d");

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
