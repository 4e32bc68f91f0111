// The gradient paths of the picked layer: over every connection, the number of paths from the input to it and from it to
// the heads. Functions of graph_page.js call these, and they use its names.

let pathsShown = false; // whether the picked layer's paths are drawn

function togglePaths() {
  pathsShown = !pathsShown;
  byId("paths").setAttribute("aria-pressed", pathsShown);
  changed();
}

// The layer whose paths are drawn for an item: its own, or a block's output.
const pickedLayer = (item) => (isBlock(item) ? model.blocks[item].output : item === "input" ? -1 : model.names[item]);

// (source, reader) → {way, count}: paths over this connection that end ("from") or start ("to") at the picked layer.
function pathCounts(picked) {
  const layers = model.layers, none = () => Array(layers.length).fill(0n);
  const [fromInput, toPicked, fromPicked, toHeads] = [none(), none(), none(), none()];
  for (const { index, reads } of layers) {
    for (const source of reads) fromInput[index] += source < 0 ? 1n : fromInput[source];
  }
  if (picked >= 0) toPicked[picked] = fromPicked[picked] = 1n;
  for (const end of model.ends) toHeads[end] = 1n;
  for (const { index, reads } of layers.toReversed()) {
    for (const source of reads) {
      if (source < 0) continue;
      toHeads[source] += toHeads[index];
      if (index <= picked) toPicked[source] += toPicked[index];
    }
  }
  for (const { index, reads } of layers.slice(picked + 1)) {
    for (const source of reads) fromPicked[index] += source < 0 ? BigInt(picked < 0) : fromPicked[source];
  }
  return (source, reader) => {
    if (reader <= picked) return { way: "from", count: (source < 0 ? 1n : fromInput[source]) * toPicked[reader] };
    return { way: "to", count: (source < 0 ? BigInt(picked < 0) : fromPicked[source]) * toHeads[reader] };
  };
}

// Block → "start end" of an edge that is drawn in it → {way, count}, over all connections that the edge stands for.
function edgeCounts(picked) {
  const counts = pathCounts(picked), found = {};
  const chain = (item) => {
    const children = {}; // block around the item → the block's child that holds it
    for (let at = item; model.parents[at]; at = model.parents[at]) children[model.parents[at]] = at;
    return children;
  };
  const chains = new Map([[-1, chain("input")], ...model.layers.map(({ index, name }) => [index, chain(name)])]);
  for (const { index, reads } of model.layers) {
    for (const source of reads) {
      const { way, count } = counts(source, index);
      if (!count) continue;
      const [starts, ends] = [chains.get(source), chains.get(index)];
      for (const block of new Set([...Object.keys(starts), ...Object.keys(ends)])) {
        const [start, end] = [starts[block] ?? "in", ends[block] ?? "out"];
        if (start === end) continue;
        const edge = ((found[block] ??= {})[`${start} ${end}`] ??= { way, count: 0n });
        edge.count += count;
      }
    }
  }
  return found;
}

// The decimal logarithm of a BigInt of any size.
function logarithm(count) {
  const digits = count.toString(), leading = digits.slice(0, 15);
  return digits.length - leading.length + Math.log10(Number(leading));
}

const edgesOf = (block) =>
  (block === model.tree.root ? scene : elements.get(block).querySelector(":scope > .body")).querySelector(":scope > .edges").children;

// Draws them, thicker with the logarithm of their number, or clears them.
function drawPaths() {
  const shown = pathsShown && selected;
  scene.classList.toggle("paths", Boolean(shown));
  const found = shown ? edgeCounts(pickedLayer(selected)) : {};
  const drawn = Object.entries(model.edges).flatMap(([block, pairs]) => {
    const edges = edgesOf(block);
    return pairs.map(([start, end], at) => [edges[at], found[block]?.[`${start} ${end}`]]);
  });
  const most = Math.max(...drawn.map(([, paths]) => (paths ? logarithm(paths.count + 1n) : 0)));
  for (const [edge, paths] of drawn) {
    edge.classList.toggle("path-from", paths?.way === "from");
    edge.classList.toggle("path-to", paths?.way === "to");
    edge.style.strokeWidth = paths ? number(1.5 + (6.5 * logarithm(paths.count + 1n)) / most) : "";
    if (paths) edge.dataset.paths = paths.count;
    else delete edge.dataset.paths;
  }
}

// What the panel says about a layer's paths.
function pathDetails(layer) {
  const { paths, gradients } = model.layers[layer];
  return [
    make("h3", {}, "Gradient paths"), table(paths),
    make("button", { onclick: () => { togglePaths(); showPanel(); } }, pathsShown ? "Hide the paths" : "Draw the paths"),
    ...(gradients.length ? [make("h3", {}, "Its weights receive the gradients of"), make("div", { class: "links" }, ...gradients.map(link))] : []),
  ];
}
