// The panel at the side: what there is to know about the network or the picked item.

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
      make("p", { class: "note" }, model.mapsNote), ...activationDetails(layer));
  }
  if (!isBlock(item)) parts.push(...weightDetails(layer));
  if (!isBlock(item)) parts.push(make("h3", {}, `cfg, line ${model.layers[layer].line}`), make("pre", {}, model.layers[layer].cfg));
  return parts;
}

function link(layer) {
  const item = itemOf(layer);
  return make("button", { class: "link", onclick: () => select(item, true) },
    layer < 0 ? "input" : `${layer} ${model.layers[layer].title}`);
}
