// Saves the diagram as it is shown, whole, whatever part of it is in the window.

const PNG_SCALE = 2, PNG_SIDE = 16000; // pixels for each unit; browsers draw no larger sides

// The text of an SVG file that needs no page around it: what is hidden is left out, colors are those of the theme.
function diagramText() {
  const { w, h } = placed[model.tree.root].size;
  const svg = stage.cloneNode(true), create = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const name of ["id", "tabindex", "role"]) svg.removeAttribute(name);
  const given = { xmlns: "http://www.w3.org/2000/svg", width: w, height: h, viewBox: `0 0 ${w} ${h}` };
  for (const [name, value] of Object.entries(given)) svg.setAttribute(name, value);
  const hidden = ".block.open > .card, .block:not(.open) > .body, .knob";
  for (const element of svg.querySelectorAll(hidden)) element.remove();
  if (!scene.classList.contains("mapped")) for (const map of svg.querySelectorAll(".map")) map.remove();
  svg.querySelector("#scene").removeAttribute("transform");
  const theme = getComputedStyle(document.documentElement), style = create("style"), page = create("rect");
  style.textContent = document.querySelector("head style").textContent
    .replace(/var\((--[\w-]+)\)/g, (_, name) => theme.getPropertyValue(name).trim());
  for (const [name, value] of Object.entries({ class: "page", width: "100%", height: "100%" })) page.setAttribute(name, value);
  svg.prepend(style, page);
  return new XMLSerializer().serializeToString(svg);
}

async function diagramPng() {
  const { w, h } = placed[model.tree.root].size, scale = Math.min(PNG_SCALE, PNG_SIDE / w, PNG_SIDE / h);
  const image = new Image(), canvas = document.createElement("canvas");
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(diagramText());
  await image.decode();
  Object.assign(canvas, { width: Math.round(w * scale), height: Math.round(h * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${model.title}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const saveSvg = () => save(new Blob([diagramText()], { type: "image/svg+xml" }), "svg");
const savePng = async () => save(await diagramPng(), "png");
