// The diagram: placing its items, opening and closing blocks, panning and zooming. The other scripts use its names.
"use strict";

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
