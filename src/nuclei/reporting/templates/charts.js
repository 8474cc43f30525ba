"use strict";
// Small charts and pictures as SVG; charts are drawn to the width of their place. No library, no network.

const byId = (id) => document.getElementById(id);
const words = (name) => name.replaceAll("_", " ");
const rgb = (kind) => `rgb(${COLOURS[kind].join(",")})`;
const escapeText = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const finite = (values) => values.filter((value) => Number.isFinite(value));

// Round steps for an axis from low to high.
function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => span / step <= count + 1e-9);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(+value.toPrecision(12));
  return found;
}

const tickText = (value) => (Math.abs(value) >= 10000 ? value / 1000 + "k" : String(+value.toFixed(4)));

// A line for each of series: {name, colour, points: [[x, y]], faint}. options: height, low, high, names (of whole x), label, dots.
function lineChart(place, series, options) {
  const drawn = series.map((one) => ({ ...one, points: one.points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y)) })).filter((one) => one.points.length);
  if (!drawn.length) {
    place.innerHTML = `<p class="note">${options.empty || "Nothing recorded here."}</p>`;
    return;
  }
  const width = Math.max(place.clientWidth, 260), height = options.height || 250;
  const edge = { left: 42, right: 12, top: 8, bottom: options.label ? 40 : 26 };
  const xs = drawn.flatMap((one) => one.points.map((point) => point[0])), ys = drawn.flatMap((one) => one.points.map((point) => point[1]));
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const y0 = options.low ?? Math.min(...ys), y1 = options.high ?? Math.max(...ys) * 1.02;
  const x = (value) => edge.left + ((value - x0) / (x1 - x0 || 1)) * (width - edge.left - edge.right);
  const y = (value) => height - edge.bottom - ((value - y0) / (y1 - y0 || 1)) * (height - edge.top - edge.bottom);
  let svg = "";
  for (const tick of ticks(y0, y1, 5)) svg += `<line class="axis" x1="${edge.left}" x2="${width - edge.right}" y1="${y(tick)}" y2="${y(tick)}"/><text x="${edge.left - 6}" y="${y(tick) + 4}" text-anchor="end">${tickText(tick)}</text>`;
  const along = options.names ? options.names.map((name, index) => [index, name]) : ticks(x0, x1, Math.max(2, Math.floor(width / 60))).map((tick) => [tick, tickText(tick)]);
  for (const [tick, name] of along) {
    const anchor = !options.names || (tick > x0 && tick < x1) ? "middle" : tick === x0 ? "start" : "end";
    svg += `<text x="${x(tick)}" y="${height - edge.bottom + 18}" text-anchor="${anchor}">${escapeText(name)}</text>`;
  }
  if (options.label) svg += `<text x="${width - edge.right}" y="${height - 4}" text-anchor="end">${escapeText(options.label)}</text>`;
  for (const one of drawn) {
    const path = one.points.map(([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("L");
    svg += `<path class="line" d="M${path}" stroke="${one.colour}" opacity="${one.faint ? 0.75 : 1}" stroke-width="${one.faint ? 1.4 : 2.2}"><title>${escapeText(one.name)}</title></path>`;
    if (options.dots || one.points.length === 1) for (const [px, py] of one.points) svg += `<circle cx="${x(px)}" cy="${y(py)}" r="3" fill="${one.colour}"><title>${escapeText(one.name)}: ${+py.toFixed(4)}</title></circle>`;
  }
  place.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" height="${height}" role="img" data-lines="${drawn.length}">${svg}</svg>`;
}

// A row for each of rows: {label, dots: [{name, colour, value}]}, on an axis from 0.
function dotChart(place, rows) {
  const shown = rows.filter((row) => row.dots.some((dot) => Number.isFinite(dot.value)));
  if (!shown.length) {
    place.innerHTML = '<p class="note">Nothing recorded here.</p>';
    return;
  }
  const width = Math.max(place.clientWidth, 260), step = 40, height = shown.length * step + 26;
  const high = Math.max(...shown.flatMap((row) => finite(row.dots.map((dot) => dot.value))), 0.01) * 1.05;
  const x = (value) => 10 + (value / high) * (width - 24);
  let svg = "";
  for (const tick of ticks(0, high, 5)) svg += `<line class="axis" x1="${x(tick)}" x2="${x(tick)}" y1="0" y2="${height - 24}"/><text x="${x(tick)}" y="${height - 8}" text-anchor="middle">${tickText(tick)}</text>`;
  shown.forEach((row, index) => {
    const y = index * step + 26;
    svg += `<text class="row" x="10" y="${y - 12}">${escapeText(row.label)}</text><line class="axis" x1="10" x2="${width - 14}" y1="${y}" y2="${y}"/>`;
    for (const dot of row.dots) if (Number.isFinite(dot.value)) svg += `<circle cx="${x(dot.value)}" cy="${y}" r="5" fill="${dot.colour}" opacity=".85"><title>${escapeText(dot.name)}: ${dot.value.toFixed(4)}</title></circle>`;
  });
  place.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" height="${height}" role="img" data-rows="${shown.length}">${svg}</svg>`;
}

// A row for each of rows: {label, colour, quantiles: 5%, 25%, 50%, 75% and 95%}, on a logarithmic axis.
function rangeChart(place, rows) {
  const shown = rows.filter((row) => row.quantiles.every((value) => value > 0));
  if (!shown.length) {
    place.innerHTML = '<p class="note">Nothing recorded here.</p>';
    return;
  }
  const width = Math.max(place.clientWidth, 260), step = 44, height = shown.length * step + 26;
  const low = Math.min(...shown.map((row) => row.quantiles[0])) / 1.15, high = Math.max(...shown.map((row) => row.quantiles[4])) * 1.15;
  const x = (value) => 10 + (Math.log(value / low) / Math.log(high / low)) * (width - 24);
  let svg = "";
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    for (const value of [1, 2, 5].map((factor) => factor * power).filter((value) => value >= low && value <= high)) svg += `<line class="axis" x1="${x(value)}" x2="${x(value)}" y1="0" y2="${height - 24}"/><text x="${x(value)}" y="${height - 8}" text-anchor="middle">${tickText(+value.toPrecision(3))}</text>`;
  shown.forEach((row, index) => {
    const y = index * step + 30, [q05, q25, q50, q75, q95] = row.quantiles.map(x);
    svg += `<g stroke="${row.colour}"><title>${row.quantiles.map((value) => +value.toPrecision(3)).join(", ")}</title><line x1="${q05}" x2="${q95}" y1="${y}" y2="${y}" stroke-width="2"/><rect x="${q25}" y="${y - 6}" width="${Math.max(q75 - q25, 1)}" height="12" rx="2" fill="${row.colour}" fill-opacity=".35"/><line x1="${q50}" x2="${q50}" y1="${y - 8}" y2="${y + 8}" stroke-width="3"/></g><text class="row" x="10" y="${y - 13}">${escapeText(row.label)}</text>`;
  });
  place.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" height="${height}" role="img" data-rows="${shown.length}">${svg}</svg>`;
}

// A path through the outlines of a kind, of all where no letter of the kinds is given for each.
function outlines(list, letters, kind, dashed, thin) {
  const d = list.filter((_, index) => !letters || letters[index] === (kind === "merged" ? "g" : kind[0])).join("");
  return d && `<path d="${d}" stroke="${rgb(kind)}" ${dashed ? 'stroke-dasharray="5 3"' : ""} ${thin ? 'opacity=".6" style="stroke-width:1"' : ""} class="${kind}"/>`;
}

const pictureSvg = (picture, paths, attributes = "") => `<svg class="picture" viewBox="0 0 ${picture.width} ${picture.height}" ${attributes}><image href="${picture.src}" width="${picture.width}" height="${picture.height}"/><g transform="translate(.5 .5)">${paths}</g></svg>`;

// Sorts a table by the column of a clicked heading: numbers by data-value, empty cells last, words by their letters.
function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const keyed = [...body.rows].map((row) => [key(row), row]);
  keyed.sort(([a], [b]) => {
    if (typeof a === "string") return (a === "") - (b === "") || (descending ? -1 : 1) * a.localeCompare(b);
    return Number.isNaN(a) - Number.isNaN(b) || (descending ? b - a : a - b) || 0;
  });
  body.append(...keyed.map(([, row]) => row));
  for (const heading of table.tHead.rows[0].cells) heading.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable"))
  for (const heading of table.tHead.rows[0].cells)
    heading.querySelector("button").addEventListener("click", () => {
      const first = table.tBodies[0].rows[0];
      const numeric = first && first.cells[heading.cellIndex].dataset.value !== undefined;
      const before = heading.getAttribute("aria-sort");
      sortTable(table, heading.cellIndex, before ? before === "ascending" : numeric);
    });
