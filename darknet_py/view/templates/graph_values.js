// Histograms of the picked layer's weights and activations, and its kernels, where the page was made with them.

const HEIGHT = 100; // of a histogram, in units of its own

function histogram({ low, high, bins }) {
  const create = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const width = (high - low) / bins.length, most = Math.max(...bins);
  const chart = create("svg", { class: "histogram", viewBox: `0 0 ${bins.length} ${HEIGHT}`, preserveAspectRatio: "none" });
  bins.forEach((count, at) => {
    const height = count ? Math.max((count / most) * HEIGHT, 1) : 0; // few among many are seen too
    const bar = create("rect", { x: at + 0.05, width: 0.9, y: HEIGHT - height, height });
    const title = create("title", {});
    title.textContent = `${signed(low + at * width)} … ${signed(low + (at + 1) * width)}: ${count}`;
    bar.append(title);
    chart.append(bar);
  });
  if (low < 0 && high > 0) {
    const zero = (-low / (high - low)) * bins.length;
    chart.append(create("line", { x1: zero, x2: zero, y1: 0, y2: HEIGHT }));
  }
  return chart;
}

const signed = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

function valuesView(view) {
  const parts = [make("p", { class: "array" }, make("b", {}, view.name), ` ${view.facts}`)];
  if (view.bins.length) {
    parts.push(histogram(view), make("div", { class: "ends" }, make("span", {}, signed(view.low)), make("span", {}, signed(view.high))));
  }
  if (view.kernels) {
    parts.push(make("img", { class: "kernels", src: view.kernels, alt: `kernels of ${view.name}` }), make("p", { class: "note" }, view.note));
  }
  return parts;
}

// What the panel says about a layer's weights, and about its output for the image.
const weightDetails = (layer) =>
  values.weights[layer] ? [make("h3", {}, "Weights"), ...values.weights[layer].flatMap(valuesView)] : [];
const activationDetails = (layer) => (values.activations[layer] ? valuesView(values.activations[layer]) : []);
