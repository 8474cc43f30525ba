"use strict";
// Results of a segmentation: pictures with outlines, measurements, and corrections by hand. No library, no network.

const byId = (id) => document.getElementById(id);
const summary = JSON.parse(byId("summary").textContent);
const blocks = [...document.querySelectorAll("script.plane")];
const planes = new Array(blocks.length);
const view = { scale: 1, x: 0, y: 0 };
const canvas = byId("canvas"), context = canvas.getContext("2d");
const COLUMNS = [["label", "Label"], ["area", "Area"], ["intensity", "Intensity"], ["x", "x"], ["y", "y"]];
let current = -1, plane = null, chosen = new Set(), mode = "choose", outlinesShown = true, line = null, frame = 0;
let order = { key: "label", down: false };

// --- shapes: rings of corners along the edges of pixels, and masks in a box --------------------------------------

function boxOf(rings) {
  let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
  for (const ring of rings)
    for (let i = 0; i < ring.length; i += 2) {
      left = Math.min(left, ring[i]); right = Math.max(right, ring[i]);
      top = Math.min(top, ring[i + 1]); bottom = Math.max(bottom, ring[i + 1]);
    }
  return { left, top, right, bottom };
}

// Pixels whose middle lies inside an odd number of rings, row by row in the box.
function rasterise(rings, box) {
  const width = box.right - box.left, height = box.bottom - box.top, mask = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const y = box.top + row + 0.5, crossings = [];
    for (const ring of rings)
      for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2) {
        const y0 = ring[j + 1], y1 = ring[i + 1];
        if (y0 <= y !== y1 <= y) crossings.push(ring[j] + ((y - y0) / (y1 - y0)) * (ring[i] - ring[j]));
      }
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2) {
      const from = Math.max(0, Math.ceil(crossings[k] - 0.5 - box.left));
      const to = Math.min(width, Math.ceil(crossings[k + 1] - 0.5 - box.left));
      for (let column = from; column < to; column++) mask[row * width + column] = 1;
    }
  }
  return mask;
}

// Rings around a mask, outer ones clockwise on the screen; where two pixels touch at a corner the ring turns right.
function trace(mask, box) {
  const width = box.right - box.left, height = box.bottom - box.top;
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x];
  const edges = new Map(), key = (x, y) => y * (width + 1) + x;
  const add = (x, y, dx, dy) => {
    const place = key(x, y);
    if (!edges.has(place)) edges.set(place, []);
    edges.get(place).push([x, y, dx, dy]);
  };
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (!at(x, y)) continue;
      if (!at(x, y - 1)) add(x, y, 1, 0);
      if (!at(x + 1, y)) add(x + 1, y, 0, 1);
      if (!at(x, y + 1)) add(x + 1, y + 1, -1, 0);
      if (!at(x - 1, y)) add(x, y + 1, 0, -1);
    }
  const rings = [];
  while (edges.size) {
    let [place, list] = edges.entries().next().value, edge = list[0];
    const ring = [], start = place;
    let before = null;
    do {
      list = edges.get(place);
      if (before && list.length > 1) edge = list.find((one) => one[2] === -before[3] && one[3] === before[2]) || list[0];
      else edge = list[0];
      list.splice(list.indexOf(edge), 1);
      if (!list.length) edges.delete(place);
      if (!before || before[2] !== edge[2] || before[3] !== edge[3]) ring.push(edge[0] + box.left, edge[1] + box.top);
      before = edge;
      place = key(edge[0] + edge[2], edge[1] + edge[3]);
    } while (place !== start || (edges.has(place) && ring.length < 4));
    rings.push(ring);
  }
  return rings;
}

function makeNucleus(label, rings, intensity) {
  const box = boxOf(rings), mask = rasterise(rings, box), width = box.right - box.left;
  let area = 0, x = 0, y = 0;
  mask.forEach((inside, index) => {
    if (!inside) return;
    area += 1; x += (index % width) + box.left; y += Math.floor(index / width) + box.top;
  });
  return area ? withPath({ label, rings, area, intensity, x: +(x / area).toFixed(1), y: +(y / area).toFixed(1), edited: true }) : null;
}

function withPath(nucleus) {
  nucleus.box = boxOf(nucleus.rings);
  nucleus.path = new Path2D();
  for (const ring of nucleus.rings) {
    nucleus.path.moveTo(ring[0], ring[1]);
    for (let i = 2; i < ring.length; i += 2) nucleus.path.lineTo(ring[i], ring[i + 1]);
    nucleus.path.closePath();
  }
  return nucleus;
}

const contains = (nucleus, x, y) => {
  if (x < nucleus.box.left || x >= nucleus.box.right || y < nucleus.box.top || y >= nucleus.box.bottom) return false;
  let inside = false;
  for (const ring of nucleus.rings)
    for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2)
      if (ring[i + 1] > y !== ring[j + 1] > y && x < ring[i] + ((y - ring[i + 1]) / (ring[j + 1] - ring[i + 1])) * (ring[j] - ring[i])) inside = !inside;
  return inside;
};

// --- corrections ---------------------------------------------------------------------------------------------------

const byLabel = (label) => plane.nuclei.find((nucleus) => nucleus.label === label);
const freeLabel = () => plane.nuclei.reduce((most, nucleus) => Math.max(most, nucleus.label), 0) + 1;
// Mean of the parts by area: the pixels themselves are not on this page. Of a drawn nucleus it is not known.
const meanIntensity = (parts) => parts.reduce((sum, one) => sum + one.intensity * one.area, 0) / parts.reduce((sum, one) => sum + one.area, 0);

function change(nuclei, selected, said) {
  if (!plane.whole) return say("Too many nuclei to correct them here.");
  plane.history.push(plane.nuclei);
  plane.nuclei = nuclei;
  chosen = new Set(selected);
  showPlane(said);
}

function undo() {
  if (!plane.history.length) return say("Nothing to take back.");
  plane.nuclei = plane.history.pop();
  chosen = new Set();
  showPlane("Taken back.");
}

function deleteChosen() {
  if (!chosen.size) return say("Choose a nucleus first.");
  change(plane.nuclei.filter((nucleus) => !chosen.has(nucleus.label)), [], `Deleted ${chosen.size}.`);
}

function joinChosen() {
  if (chosen.size < 2) return say("Choose two or more nuclei with Shift first.");
  const parts = plane.nuclei.filter((nucleus) => chosen.has(nucleus.label));
  const box = boxOf(parts.flatMap((part) => part.rings)), mask = rasterise(parts.flatMap((part) => part.rings), box);
  const joined = makeNucleus(parts[0].label, trace(mask, box), meanIntensity(parts));
  change([...plane.nuclei.filter((nucleus) => !chosen.has(nucleus.label)), joined], [joined.label], `Joined ${parts.length}.`);
}

// Splits the nucleus that the line crosses most: pixels on either side of it become a nucleus each.
function splitBy(from, to) {
  const counts = new Map();
  for (let step = 0; step <= 200; step++) {
    const x = from[0] + ((to[0] - from[0]) * step) / 200, y = from[1] + ((to[1] - from[1]) * step) / 200;
    const hit = plane.nuclei.find((nucleus) => contains(nucleus, x, y));
    if (hit) counts.set(hit, (counts.get(hit) || 0) + 1);
  }
  const [nucleus] = [...counts.entries()].sort((a, b) => b[1] - a[1])[0] || [];
  if (!nucleus) return say("The line crosses no nucleus.");
  const { box } = nucleus, width = box.right - box.left, mask = rasterise(nucleus.rings, box), parts = [mask.slice(), mask.slice()];
  mask.forEach((inside, index) => {
    if (!inside) return;
    const x = (index % width) + box.left + 0.5 - from[0], y = Math.floor(index / width) + box.top + 0.5 - from[1];
    parts[(to[0] - from[0]) * y - (to[1] - from[1]) * x > 0 ? 0 : 1][index] = 0;
  });
  if (parts.some((part) => !part.includes(1))) return say("The line leaves nothing on one side.");
  const made = [nucleus.label, freeLabel()].map((label, index) => makeNucleus(label, trace(parts[index], box), nucleus.intensity));
  change([...plane.nuclei.filter((one) => one !== nucleus), ...made], made.map((one) => one.label), "Split in two.");
}

// A nucleus inside the drawn line; pixels of others stay theirs.
function drawAround(points) {
  const ring = points.flatMap(([x, y]) => [Math.min(plane.width, Math.max(0, x)), Math.min(plane.height, Math.max(0, y))]);
  const around = boxOf([ring]), box = { left: Math.floor(around.left), top: Math.floor(around.top), right: Math.ceil(around.right), bottom: Math.ceil(around.bottom) };
  if (!(box.right - box.left > 0 && box.bottom - box.top > 0)) return say("Draw around a nucleus.");
  const mask = rasterise([ring], box);
  for (const other of plane.nuclei) {
    if (other.box.left >= box.right || other.box.right <= box.left || other.box.top >= box.bottom || other.box.bottom <= box.top) continue;
    rasterise(other.rings, box).forEach((inside, index) => { if (inside) mask[index] = 0; });
  }
  if (!mask.includes(1)) return say("Nothing free inside the line.");
  const made = makeNucleus(freeLabel(), trace(mask, box), NaN);
  change([...plane.nuclei, made], [made.label], `Drawn: ${made.area} pixels.`);
}

// --- downloads -----------------------------------------------------------------------------------------------------

function save(name, parts, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const ringArea = (ring) => {
  let sum = 0;
  for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2) sum += ring[j] * ring[i + 1] - ring[i] * ring[j + 1];
  return sum / 2;
};

function toFeature(nucleus) {
  const points = (ring) => [...Array(ring.length / 2).keys(), 0].map((i) => [ring[2 * i], ring[2 * i + 1]]);
  const outer = nucleus.rings.filter((ring) => ringArea(ring) > 0);
  const polygons = outer.map((ring) => [points(ring)]);
  for (const hole of nucleus.rings.filter((ring) => ringArea(ring) < 0)) {
    const holder = outer.findIndex((ring) => contains({ rings: [ring], box: boxOf([ring]) }, hole[0] + 1e-3, hole[1] + 1e-3) || contains({ rings: [ring], box: boxOf([ring]) }, hole[0] - 1e-3, hole[1] - 1e-3));
    polygons[Math.max(0, holder)].push(points(hole));
  }
  const single = polygons.length === 1;
  return {
    type: "Feature",
    geometry: { type: single ? "Polygon" : "MultiPolygon", coordinates: single ? polygons[0] : polygons },
    properties: { objectType: "detection", name: String(nucleus.label), measurements: { Label: nucleus.label, "Area px": nucleus.area } },
  };
}

const numbered = () => [...plane.nuclei].sort((a, b) => a.label - b.label).map((nucleus, index) => ({ ...nucleus, label: index + 1 }));

function geojsonText() {
  return JSON.stringify({ type: "FeatureCollection", features: numbered().map(toFeature) });
}

// A TIFF with 16 bits a pixel, 32 past 65,535 nuclei, uncompressed, in one strip.
function labelTiff() {
  const nuclei = numbered(), { width, height } = plane, wide = nuclei.length > 65535;
  const labels = wide ? new Uint32Array(width * height) : new Uint16Array(width * height);
  for (const nucleus of nuclei) {
    const { box } = nucleus, mask = rasterise(nucleus.rings, box), across = box.right - box.left;
    mask.forEach((inside, index) => {
      if (inside) labels[(box.top + Math.floor(index / across)) * width + box.left + (index % across)] = nucleus.label;
    });
  }
  const bits = wide ? 32 : 16;
  const entries = [[256, 4, width], [257, 4, height], [258, 3, bits], [259, 3, 1], [262, 3, 1], [273, 4, 0], [277, 3, 1], [278, 4, height], [279, 4, labels.byteLength], [339, 3, 1]];
  const head = new DataView(new ArrayBuffer(8 + 2 + entries.length * 12 + 4));
  head.setUint16(0, 0x4949, true); head.setUint16(2, 42, true); head.setUint32(4, 8, true); head.setUint16(8, entries.length, true);
  entries.forEach(([tag, type, value], index) => {
    const at = 10 + index * 12;
    head.setUint16(at, tag, true); head.setUint16(at + 2, type, true); head.setUint32(at + 4, 1, true);
    head.setUint32(at + 8, tag === 273 ? head.byteLength : value, true);
  });
  return [head.buffer, labels.buffer];
}

// --- the picture ---------------------------------------------------------------------------------------------------

const colourOf = (label) => `hsl(${(label * 137.5) % 360} 90% 62%)`;

function redraw() {
  if (!frame) frame = requestAnimationFrame(paint);
}

function paint() {
  frame = 0;
  if (!plane) return;
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  context.imageSmoothingEnabled = view.scale < 3;
  if (plane.image.complete && plane.image.naturalWidth) context.drawImage(plane.image, 0, 0, plane.width, plane.height);
  const left = -view.x / view.scale, top = -view.y / view.scale, right = left + width / view.scale, bottom = top + height / view.scale;
  for (const nucleus of plane.nuclei) {
    const { box } = nucleus, picked = chosen.has(nucleus.label);
    if (!(outlinesShown || picked) || box.right < left || box.left > right || box.bottom < top || box.top > bottom) continue;
    context.lineWidth = (picked ? 3 : 1.5) / view.scale;
    context.strokeStyle = picked ? "#fff" : colourOf(nucleus.label);
    context.stroke(nucleus.path);
    if (picked) {
      context.fillStyle = "rgb(255 255 255 / 25%)";
      context.fill(nucleus.path, "evenodd");
    }
  }
  if (line) {
    context.lineWidth = 2 / view.scale;
    context.strokeStyle = "#fff";
    context.beginPath();
    line.forEach(([x, y], index) => context[index ? "lineTo" : "moveTo"](x, y));
    context.stroke();
  }
}

function fit() {
  view.scale = Math.min(canvas.clientWidth / plane.width, canvas.clientHeight / plane.height);
  view.x = (canvas.clientWidth - plane.width * view.scale) / 2;
  view.y = (canvas.clientHeight - plane.height * view.scale) / 2;
  redraw();
}

function scaleAt(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(64, Math.max(0.01, view.scale * factor)), real = scale / view.scale;
  view.x = x - (x - view.x) * real;
  view.y = y - (y - view.y) * real;
  view.scale = scale;
  redraw();
}

function centreOn(nucleus) {
  const least = Math.min(canvas.clientWidth, canvas.clientHeight) / (8 * Math.max(nucleus.box.right - nucleus.box.left, nucleus.box.bottom - nucleus.box.top));
  view.scale = Math.min(64, Math.max(view.scale, least));
  view.x = canvas.clientWidth / 2 - nucleus.x * view.scale;
  view.y = canvas.clientHeight / 2 - nucleus.y * view.scale;
  redraw();
}

// --- pointers and keys ---------------------------------------------------------------------------------------------

const pointers = new Map();
let moved = 0, spread = 0;
const placeOf = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const toImage = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

canvas.addEventListener("pointerdown", (event) => {
  if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placeOf(event));
  moved = 0;
  spread = 0;
  if (mode !== "choose" && pointers.size === 1) line = [toImage(placeOf(event))];
});
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const place = placeOf(event);
  pointers.set(event.pointerId, place);
  moved += Math.abs(place[0] - before[0]) + Math.abs(place[1] - before[1]);
  if (pointers.size === 2) {
    line = null;
    const [a, b] = [...pointers.values()], apart = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (spread) scaleAt(apart / spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    spread = apart;
  } else if (line) {
    if (mode === "split") line = [line[0], toImage(place)];
    else line.push(toImage(place));
    redraw();
  } else {
    view.x += place[0] - before[0];
    view.y += place[1] - before[1];
    redraw();
  }
});
for (const kind of ["pointerup", "pointercancel"])
  canvas.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const points = line;
    line = null;
    if (kind === "pointercancel") return redraw();
    if (points && mode === "split" && points.length === 2) splitBy(...points);
    else if (points && mode === "draw" && points.length > 2) drawAround(points);
    else if (mode === "choose" && moved < 5) {
      const hit = plane.nuclei.find((nucleus) => contains(nucleus, ...toImage(placeOf(event))));
      choose(hit ? hit.label : null, event.shiftKey, true);
    }
    redraw();
  });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  scaleAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...placeOf(event));
}, { passive: false });

function setMode(wanted) {
  mode = mode === wanted ? "choose" : wanted;
  for (const id of ["split", "draw"]) byId(id).setAttribute("aria-pressed", String(mode === id));
  byId("stage").classList.toggle("drawing", mode !== "choose");
  say(mode === "split" ? "Drag a line across a nucleus." : mode === "draw" ? "Drag around a nucleus." : "");
}

function toggleOutlines() {
  outlinesShown = !outlinesShown;
  byId("outlines").setAttribute("aria-pressed", String(outlinesShown));
  redraw();
}

const ACTIONS = {
  previous: () => open(current - 1), next: () => open(current + 1), outlines: toggleOutlines, fit,
  closer: () => scaleAt(1.4), farther: () => scaleAt(1 / 1.4), delete: deleteChosen, join: joinChosen, undo,
  split: () => setMode("split"), draw: () => setMode("draw"),
  "save-geojson": () => save(`${plane.name}.geojson`, [geojsonText()], "application/geo+json"),
  "save-labels": () => save(`${plane.name}.tif`, labelTiff(), "image/tiff"),
};
const KEYS = {
  ArrowLeft: "previous", ArrowRight: "next", o: "outlines", 0: "fit", "+": "closer", "=": "closer", "-": "farther",
  Delete: "delete", Backspace: "delete", j: "join", s: "split", d: "draw", z: "undo",
};
for (const [id, act] of Object.entries(ACTIONS)) byId(id).addEventListener("click", act);
addEventListener("keydown", (event) => {
  if (!plane || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (mode !== "choose") setMode(mode);
    return choose(null, false, false);
  }
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  ACTIONS[action]();
});
addEventListener("resize", redraw);
addEventListener("beforeunload", (event) => {
  if (navigator.userActivation?.hasBeenActive && planes.some((one) => one?.history.length)) event.preventDefault();
});

// --- table, charts, list of pictures -------------------------------------------------------------------------------

function say(text) {
  byId("status").textContent = text;
}

function choose(label, adding, scroll) {
  if (!adding) chosen = new Set();
  if (label !== null) chosen[chosen.has(label) ? "delete" : "add"](label);
  for (const row of document.querySelectorAll("#nuclei tbody tr")) row.classList.toggle("chosen", chosen.has(Number(row.dataset.label)));
  const row = scroll && label !== null && document.querySelector(`#nuclei tr[data-label="${label}"]`);
  if (row) row.scrollIntoView({ block: "nearest" });
  const one = chosen.size === 1 && byLabel([...chosen][0]);
  say(one ? `Nucleus ${one.label}: ${describeArea(one.area)}, intensity ${describe(one.intensity)}.` : chosen.size ? `${chosen.size} chosen.` : "");
  redraw();
}

const describe = (value) => (Number.isFinite(value) ? String(+value.toPrecision(4)) : "");
const scaleOfArea = () => (plane.pixel_size ? plane.pixel_size[0] * plane.pixel_size[1] : 1);
const unitOfArea = () => (plane.pixel_size ? "µm²" : "pixels");
const describeArea = (area) => `${describe(area * scaleOfArea())} ${unitOfArea()}`;

function fillTable() {
  const head = document.querySelector("#nuclei thead tr"), body = document.querySelector("#nuclei tbody");
  head.replaceChildren(...COLUMNS.map(([key, name]) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    button.textContent = key === "area" ? `Area, ${unitOfArea()}` : name;
    button.addEventListener("click", () => {
      order = { key, down: order.key === key && !order.down };
      fillTable();
    });
    if (order.key === key) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    cell.append(button);
    return cell;
  }));
  const sign = order.down ? -1 : 1;
  const nuclei = [...plane.nuclei].sort((a, b) => sign * ((a[order.key] || 0) - (b[order.key] || 0)) || a.label - b.label);
  body.replaceChildren(...nuclei.map((nucleus) => {
    const row = document.createElement("tr");
    row.dataset.label = nucleus.label;
    row.classList.toggle("chosen", chosen.has(nucleus.label));
    for (const [key] of COLUMNS) {
      const cell = document.createElement("td");
      cell.textContent = key === "label" ? nucleus.label : describe(key === "area" ? nucleus.area * scaleOfArea() : nucleus[key]);
      row.append(cell);
    }
    return row;
  }));
}

document.querySelector("#nuclei tbody").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row) return;
  const label = Number(row.dataset.label);
  choose(label, event.shiftKey, false);
  if (chosen.has(label)) centreOn(byLabel(label));
});

function histogram(id, values, name) {
  const found = values.filter(Number.isFinite), chart = byId(`${id}-chart`);
  chart.replaceChildren();
  byId(`${id}-caption`).textContent = found.length ? `${name}, ${found.length} nuclei` : `${name}: no nuclei`;
  if (!found.length) return;
  const low = found.reduce((a, b) => Math.min(a, b)), high = found.reduce((a, b) => Math.max(a, b));
  const bins = Math.max(1, Math.min(24, Math.ceil(Math.sqrt(found.length)))), counts = new Array(bins).fill(0);
  for (const value of found) counts[Math.min(bins - 1, Math.floor(((value - low) / (high - low || 1)) * bins))] += 1;
  const most = Math.max(...counts), make = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    chart.append(element);
    return element;
  };
  chart.setAttribute("viewBox", "0 0 300 150");
  chart.setAttribute("preserveAspectRatio", "none");
  counts.forEach((count, index) => make("rect", { x: (300 / bins) * index + 0.5, width: 300 / bins - 1, y: 130 - (120 * count) / most, height: (120 * count) / most }));
  make("text", { x: 0, y: 146 }, describe(low));
  make("text", { x: 300, y: 146, "text-anchor": "end" }, describe(high));
}

function load(index) {
  if (!planes[index]) {
    const loaded = JSON.parse(blocks[index].textContent);
    loaded.nuclei.forEach(withPath);
    loaded.image = new Image();
    loaded.image.addEventListener("load", redraw);
    loaded.image.src = loaded.picture;
    loaded.history = [];
    loaded.whole = loaded.nuclei.length === loaded.count;
    planes[index] = loaded;
  }
  return planes[index];
}

function open(index) {
  if (index < 0 || index >= blocks.length) return;
  current = index;
  plane = load(index);
  chosen = new Set();
  byId("viewer").hidden = false;
  [...byId("planes").children].forEach((button, place) => button.setAttribute("aria-pressed", String(place === index)));
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === blocks.length - 1;
  showPlane("");
  fit();
}

function showPlane(said) {
  const row = summary.planes[current];
  const counted = plane.whole ? `${plane.nuclei.length} nuclei` : `the first ${plane.nuclei.length} of ${plane.count} nuclei`;
  byId("title").textContent = `${plane.name}: ${counted}${row.notes ? ` (${row.notes})` : ""}`;
  for (const id of ["delete", "join", "split", "draw", "save-geojson", "save-labels"]) byId(id).disabled = !plane.whole;
  byId("undo").disabled = !plane.history.length;
  fillTable();
  histogram("area", plane.nuclei.map((nucleus) => nucleus.area * scaleOfArea()), `Area in ${unitOfArea()}`);
  histogram("intensity", plane.nuclei.map((nucleus) => nucleus.intensity), "Mean intensity");
  say(said);
  redraw();
}

byId("planes").append(...summary.planes.map((row, index) => {
  const button = document.createElement("button"), image = document.createElement("img"), text = document.createElement("span"), name = document.createElement("b");
  image.src = row.thumbnail;
  image.alt = "";
  image.loading = "lazy";
  name.textContent = row.image;
  text.append(name, `${row.nuclei} nuclei`);
  button.append(image, text);
  button.addEventListener("click", () => {
    open(index);
    byId("title").scrollIntoView({ behavior: "smooth" });
  });
  return button;
}));
byId("counts").textContent = summary.counts;
byId("others").hidden = !summary.others.length;
byId("other-rows").append(...summary.others.map((other) => {
  const row = document.createElement("tr");
  for (const value of [other.file, other.status, other.notes]) {
    const cell = document.createElement("td");
    cell.textContent = value;
    if (other.status === "failed") cell.classList.add("failed");
    row.append(cell);
  }
  return row;
}));
if (blocks.length === 1) open(0);
