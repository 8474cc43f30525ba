// Small charts as SVG, drawn to the width of their place. No library, no network.

const finite = (values) => values.filter((value) => Number.isFinite(value));
const tickText = (value) => (Math.abs(value) >= 10000 ? value / 1000 + "k" : String(+value.toFixed(4)));

// Round steps for an axis from low to high.
function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const factors = [1, 2, 2.5, 5, 10].map((factor) => factor * power);
  const step = factors.find((factor) => span / factor <= count + 1e-9);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step)
    found.push(+value.toPrecision(12));
  return found;
}

// The chart of a place: `draw` is called with its width and gives the height, attributes and shapes.
function showChart(place, draw) {
  const width = Math.max(place.clientWidth, 260);
  const { height, attributes, shapes } = draw(width);
  const size = { class: "chart", viewBox: `0 0 ${width} ${height}`, height, role: "img" };
  place.replaceChildren(shape("svg", { ...size, ...attributes }, ...shapes));
}

const text = (x, y, anchor, content) => shape("text", { x, y, "text-anchor": anchor }, content);
const axis = (x1, x2, y1, y2) => shape("line", { class: "axis", x1, x2, y1, y2 });
const rowLabel = (y, content) => shape("text", { class: "row", x: 10, y }, content);
const withTitle = (node, title) => build(node, {}, [shape("title", {}, title)]);

// A line for each of series: {name, colour, points: [[x, y]], faint}.
// options: height, low, high, names (of whole x), label, dots, empty.
function lineChart(place, series, options) {
  const isDrawn = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);
  const drawn = series.map((one) => ({ ...one, points: one.points.filter(isDrawn) })).filter((one) => one.points.length);
  if (!drawn.length) return place.replaceChildren(note(options.empty || "Nothing recorded here."));
  showChart(place, (width) => {
    const height = options.height || 250, edge = { left: 42, right: 12, top: 8, bottom: options.label ? 40 : 26 };
    const points = drawn.flatMap((one) => one.points), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const x0 = Math.min(...xs), x1 = Math.max(...xs);
    const y0 = options.low ?? Math.min(...ys), y1 = options.high ?? Math.max(...ys) * 1.02;
    const x = (value) => edge.left + ((value - x0) / (x1 - x0 || 1)) * (width - edge.left - edge.right);
    const y = (value) => height - edge.bottom - ((value - y0) / (y1 - y0 || 1)) * (height - edge.top - edge.bottom);
    const grid = ticks(y0, y1, 5).flatMap((tick) => [
      axis(edge.left, width - edge.right, y(tick), y(tick)),
      text(edge.left - 6, y(tick) + 4, "end", tickText(tick)),
    ]);
    const along = options.names
      ? options.names.map((name, index) => [index, name])
      : ticks(x0, x1, Math.max(2, Math.floor(width / 60))).map((tick) => [tick, tickText(tick)]);
    const labels = along.map(([tick, name]) => {
      const inside = !options.names || (tick > x0 && tick < x1);
      return text(x(tick), height - edge.bottom + 18, inside ? "middle" : tick === x0 ? "start" : "end", name);
    });
    if (options.label) labels.push(text(width - edge.right, height - 4, "end", options.label));
    const lines = drawn.flatMap((one) => drawLine(one, x, y, options.dots));
    return { height, attributes: { "data-lines": drawn.length }, shapes: [...grid, ...labels, ...lines] };
  });
}

function drawLine(one, x, y, dots) {
  const d = "M" + one.points.map(([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("L");
  const look = { stroke: one.colour, opacity: one.faint ? 0.75 : 1, "stroke-width": one.faint ? 1.4 : 2.2 };
  const line = withTitle(shape("path", { class: "line", d, ...look }), one.name);
  if (!dots && one.points.length > 1) return [line];
  const circles = one.points.map(([px, py]) =>
    withTitle(shape("circle", { cx: x(px), cy: y(py), r: 3, fill: one.colour }), `${one.name}: ${+py.toFixed(4)}`),
  );
  return [line, ...circles];
}

// A row for each of rows: {label, dots: [{name, colour, value}]}, on an axis from 0.
function dotChart(place, rows) {
  const shown = rows.filter((row) => row.dots.some((one) => Number.isFinite(one.value)));
  if (!shown.length) return place.replaceChildren(note("Nothing recorded here."));
  showChart(place, (width) => {
    const step = 40, height = shown.length * step + 26;
    const high = Math.max(...shown.flatMap((row) => finite(row.dots.map((one) => one.value))), 0.01) * 1.05;
    const x = (value) => 10 + (value / high) * (width - 24);
    const grid = ticks(0, high, 5).flatMap((tick) => [
      axis(x(tick), x(tick), 0, height - 24),
      text(x(tick), height - 8, "middle", tickText(tick)),
    ]);
    const lines = shown.flatMap((row, index) => {
      const cy = index * step + 26;
      const circle = (one) => shape("circle", { cx: x(one.value), cy, r: 5, fill: one.colour, opacity: 0.85 });
      const dots = row.dots.filter((one) => Number.isFinite(one.value));
      const circles = dots.map((one) => withTitle(circle(one), `${one.name}: ${one.value.toFixed(4)}`));
      return [rowLabel(cy - 12, row.label), axis(10, width - 14, cy, cy), ...circles];
    });
    return { height, attributes: { "data-rows": shown.length }, shapes: [...grid, ...lines] };
  });
}

// A row for each of rows: {label, colour, quantiles: 5%, 25%, 50%, 75% and 95%}, on a logarithmic axis.
function rangeChart(place, rows) {
  const shown = rows.filter((row) => row.quantiles.every((value) => value > 0));
  if (!shown.length) return place.replaceChildren(note("Nothing recorded here."));
  showChart(place, (width) => {
    const step = 44, height = shown.length * step + 26;
    const low = Math.min(...shown.map((row) => row.quantiles[0])) / 1.15;
    const high = Math.max(...shown.map((row) => row.quantiles[4])) * 1.15;
    const x = (value) => 10 + (Math.log(value / low) / Math.log(high / low)) * (width - 24);
    const grid = [];
    for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
      for (const value of [1, 2, 5].map((factor) => factor * power))
        if (value >= low && value <= high)
          grid.push(
            axis(x(value), x(value), 0, height - 24),
            text(x(value), height - 8, "middle", tickText(+value.toPrecision(3))),
          );
    const boxes = shown.flatMap((row, index) => drawBox(row, x, index * step + 30));
    return { height, attributes: { "data-rows": shown.length }, shapes: [...grid, ...boxes] };
  });
}

function drawBox(row, x, y) {
  const [q05, q25, q50, q75, q95] = row.quantiles.map(x);
  const size = { x: q25, y: y - 6, width: Math.max(q75 - q25, 1), height: 12, rx: 2 };
  const box = shape(
    "g",
    { stroke: row.colour },
    shape("title", {}, row.quantiles.map((value) => +value.toPrecision(3)).join(", ")),
    shape("line", { x1: q05, x2: q95, y1: y, y2: y, "stroke-width": 2 }),
    shape("rect", { ...size, fill: row.colour, "fill-opacity": 0.35 }),
    shape("line", { x1: q50, x2: q50, y1: y - 8, y2: y + 8, "stroke-width": 3 }),
  );
  return [box, rowLabel(y - 13, row.label)];
}
