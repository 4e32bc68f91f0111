// The picture in the page: opening and closing blocks, panning and zooming, what an item is connected to.
"use strict";

const model = JSON.parse(document.getElementById("model").textContent);
const stage = document.getElementById("stage");
const scene = document.getElementById("scene");
const elements = new Map(); // item → its <g>
for (const element of scene.querySelectorAll(".item")) elements.set(element.id, element);
const opened = new Set([model.tree.root]);
const view = { x: 0, y: 0, k: 1 };
let placed = place(model.tree, opened);
stage.removeAttribute("viewBox"); // it fits the picture where scripts do not run

const isBlock = (item) => item in model.tree.grids;
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
    const [band, name, sizes] = row.children;
    band.setAttribute("y", number(top - 8));
    band.setAttribute("width", number(size.w - MARGIN));
    band.setAttribute("height", number(height + 16));
    name.setAttribute("y", number(top + Math.min(height, 64) / 2 - 2));
    sizes.setAttribute("y", number(top + Math.min(height, 64) / 2 + 13));
  }
}

// Corner of a visible item in the picture's coordinates, with its size.
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
  return Object.keys(model.tree.grids).filter((inner) => inner !== block && ancestors(inner).includes(block));
}

function openAll() {
  for (const block of Object.keys(model.tree.grids)) opened.add(block);
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

function centre(item, least = 0) {
  const { x, y, w, h } = box(item), k = Math.max(view.k, least);
  const top = h * k > stage.clientHeight ? stage.clientHeight * 0.1 : stage.clientHeight / 2 - (h * k) / 2;
  moveTo(stage.clientWidth / 2 - (x + w / 2) * k, top - y * k, k);
}

function bringIntoSight(item) {
  const { x, y, w, h } = box(item);
  const [left, top, right, bottom] = [x, y, x + w, y + Math.min(h, 80)].map(
    (value, at) => value * view.k + (at % 2 ? view.y : view.x),
  );
  if (left < 0 || top < 0 || right > stage.clientWidth || bottom > stage.clientHeight) centre(item, 0.7);
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
  if (!item || !elements.has(item)) return;
  elements.get(item).classList.add("lit");
  const grid = model.tree.grids[model.parents[item]];
  const parent = model.parents[item];
  const group = parent === model.tree.root ? scene : elements.get(parent).querySelector(":scope > .body");
  const edges = group.querySelector(":scope > .edges").children;
  [...grid.lines, ...grid.wires].forEach(([from, to], at) => {
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
