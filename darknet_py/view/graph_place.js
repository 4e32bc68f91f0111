// Pixels for any choice of open blocks: graph_place.py again, line by line, for the page. A test compares the two.
"use strict";

const HEADER = 26, PAD = 10, GAP = 20, TURN = 7, COLUMN_GAP = 14, LANE = 8;
const WIRE_GAP = 26, WIRE_STEP = 8, MARGIN = 16, LABELS = 74, RADIUS = 6;

// tree: {root, closed: {name: [w, h]}, headers: {name: width}, grids: {name: {rows, columns, lines, wires}}};
// a line is [start, end, lane], a wire [start, end, kind, down, [[gutter, lane], …]]. opened: Set of names.
// Gives {name: {corners: {child: [x, y]}, paths: [d, …], size: {w, h, x, y}, bands: [[y, height], …]}}.
function place(tree, opened) {
  const placed = {};
  const size = (item) => {
    if (opened.has(item) && tree.grids[item]) {
      placed[item] = placeBlock(tree.grids[item], size, tree.headers[item]);
      return placed[item].size;
    }
    const [w, h] = tree.closed[item];
    return { w, h, x: w / 2, y: h / 2 };
  };
  const grid = tree.grids[tree.root];
  placed[tree.root] = grid.wires.length ? placePyramid(grid, size) : placeBlock(grid, size, 0, 0);
  return placed;
}

function placeBlock(grid, size, wanted, header = HEADER) {
  const children = Object.keys(grid.rows);
  const sizes = Object.fromEntries(children.map((child) => [child, size(child)]));
  const count = 1 + Math.max(...Object.values(grid.columns), ...grid.lines.map((line) => line[2]));
  const [left, right] = extents(sizes, grid.columns, count, LANE);
  const axes = sums(left, right, left.map(() => COLUMN_GAP)).map((before, i) => PAD + before + left[i]);
  const width = Math.max(axes[count - 1] + right[count - 1] + PAD, wanted);
  const heights = new Array(1 + Math.max(...Object.values(grid.rows))).fill(0);
  for (const child of children) heights[grid.rows[child]] = Math.max(heights[grid.rows[child]], sizes[child].h);
  const none = heights.map(() => 0), gaps = heights.map(() => GAP);
  const tops = sums(heights, none, gaps).map((before) => header + GAP + before);
  const bottom = tops[tops.length - 1] + heights[heights.length - 1] + GAP;
  const corners = {};
  for (const child of children) corners[child] = [axes[grid.columns[child]] - sizes[child].x, tops[grid.rows[child]]];

  const paths = grid.lines.map(([from, to, lane]) => {
    let start = [axes[0], header], high = header + TURN;
    if (from !== "in") {
      const row = grid.rows[from];
      start = [axes[grid.columns[from]], corners[from][1] + sizes[from].h];
      high = tops[row] + heights[row] + TURN;
    }
    const end = to === "out" ? [axes[0], bottom] : [axes[grid.columns[to]], corners[to][1]];
    const low = (to === "out" ? bottom : tops[grid.rows[to]]) - TURN;
    return rounded([start, [start[0], high], [axes[lane], high], [axes[lane], low], [end[0], low], end]);
  });
  return { corners, paths, size: { w: width, h: bottom, x: axes[0], y: HEADER / 2 }, bands: [] };
}

function placePyramid(grid, size) {
  const children = Object.keys(grid.rows);
  const sizes = Object.fromEntries(children.map((child) => [child, size(child)]));
  const columns = 1 + Math.max(...Object.values(grid.columns)), rows = 1 + Math.max(...Object.values(grid.rows));
  const lanesX = new Array(columns).fill(0), lanesY = new Array(rows).fill(0);
  for (const wire of grid.wires) {
    wire[4].forEach(([number, lane], at) => {
      const counts = at === 1 ? lanesY : lanesX;
      counts[number] = Math.max(counts[number], lane + 1);
    });
  }
  const [left, right] = extents(sizes, grid.columns, columns, 0);
  const above = new Array(rows).fill(0), below = new Array(rows).fill(0);
  for (const child of children) {
    const row = grid.rows[child];
    above[row] = Math.max(above[row], sizes[child].y);
    below[row] = Math.max(below[row], sizes[child].h - sizes[child].y);
  }
  const gapsX = lanesX.map((lanes) => WIRE_GAP + WIRE_STEP * lanes);
  const gapsY = lanesY.map((lanes) => WIRE_GAP + WIRE_STEP * lanes);
  const xs = sums(left, right, gapsX).map((before, i) => MARGIN + LABELS + before + left[i]);
  const ys = sums(above, below, gapsY).map((before, i) => MARGIN + before + above[i]);
  const corners = {};
  for (const child of children) {
    corners[child] = [xs[grid.columns[child]] - sizes[child].x, ys[grid.rows[child]] - sizes[child].y];
  }
  const gutterX = ([number, lane]) => xs[number] + right[number] + WIRE_GAP / 2 + WIRE_STEP * lane;
  const gutterY = ([number, lane]) => ys[number] + below[number] + WIRE_GAP / 2 + WIRE_STEP * lane;

  const paths = grid.wires.map(([from, to, kind, down, gutters]) => {
    const [ax, ay] = corners[from], [bx, by] = corners[to], a = sizes[from], b = sizes[to];
    const leave = [ax + a.w, ay + a.y], enter = [bx, by + b.y];
    if (kind === "h") return rounded([leave, enter]);
    const top = [bx + b.x, down ? by : by + b.h];
    if (kind === "v") return rounded([[ax + a.x, down ? ay + a.h : ay], top]);
    const x = gutterX(gutters[0]);
    if (kind === "c") return rounded([leave, [x, leave[1]], [x, enter[1]], enter]);
    const y = gutterY(gutters[1]);
    if (kind === "t") return rounded([leave, [x, leave[1]], [x, y], [top[0], y], top]);
    const into = gutterX(gutters[2]);
    return rounded([leave, [x, leave[1]], [x, y], [into, y], [into, enter[1]], enter]);
  });
  const w = xs[columns - 1] + right[columns - 1] + gapsX[columns - 1] - WIRE_GAP + MARGIN;
  const h = ys[rows - 1] + below[rows - 1] + gapsY[rows - 1] - WIRE_GAP + MARGIN;
  return { corners, paths, size: { w, h, x: 0, y: 0 }, bands: ys.map((y, i) => [y - above[i], above[i] + below[i]]) };
}

function extents(sizes, columns, count, least) {
  const left = new Array(count).fill(least), right = new Array(count).fill(least);
  for (const [child, column] of Object.entries(columns)) {
    left[column] = Math.max(left[column], sizes[child].x);
    right[column] = Math.max(right[column], sizes[child].w - sizes[child].x);
  }
  return [left, right];
}

function sums(first, second, gaps) {
  let sum = 0;
  return gaps.map((gap, i) => {
    const before = sum;
    sum += first[i] + second[i] + gap;
    return before;
  });
}

function rounded(points) {
  const corners = [points[0]];
  for (const [x, y] of points.slice(1)) {
    const last = corners[corners.length - 1], before = corners[corners.length - 2];
    if (x === last[0] && y === last[1]) continue;
    const straight = before && ((before[0] === last[0] && last[0] === x) || (before[1] === last[1] && last[1] === y));
    if (straight) corners[corners.length - 1] = [x, y];
    else corners.push([x, y]);
  }
  let path = `M${number(corners[0][0])} ${number(corners[0][1])}`;
  for (let i = 1; i + 1 < corners.length; i++) {
    const [ax, ay] = corners[i - 1], [bx, by] = corners[i], [cx, cy] = corners[i + 1];
    const before = Math.abs(bx - ax) + Math.abs(by - ay), after = Math.abs(cx - bx) + Math.abs(cy - by);
    const radius = Math.min(RADIUS, before / 2, after / 2);
    path += `L${number(bx - radius * Math.sign(bx - ax))} ${number(by - radius * Math.sign(by - ay))}`;
    path += `Q${number(bx)} ${number(by)} `;
    path += `${number(bx + radius * Math.sign(cx - bx))} ${number(by + radius * Math.sign(cy - by))}`;
  }
  const end = corners[corners.length - 1];
  return path + `L${number(end[0])} ${number(end[1])}`;
}

function number(value) {
  return String(Number(value.toFixed(2)));
}
