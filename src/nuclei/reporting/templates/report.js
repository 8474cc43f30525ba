// The report: filters narrow all sections, and what is chosen stands in the address.

const names = [...new Set([...page.experiments.map((one) => one.name), ...page.curves.map((one) => one.experiment)])];
const colour = (name) => `var(--e${Math.max(names.indexOf(name), 0) % 10})`;
const hidden = new Set();
const position = new Map(page.images.map((image, index) => [image.id, index]));
const pictures = new Map(Object.entries(page.pictures));
const results = new Map(Object.entries(page.results));
// best first, as the experiments are
const scored = page.experiments.map((one) => one.name).filter((name) => results.has(name));
const PAGE = innerWidth < 640 ? 4 : 8;
const LAYERS = { errors: "the errors", truth: "the annotation", predicted: "the prediction", none: "the image alone" };
let cardsShown = PAGE;

const modality = () => byId("modality").value;
const layer = () => document.querySelector(".layer").value;
const visible = (name) => !hidden.has(name);
const score = (name, id) => results.get(name).score[position.get(id)];
const imageOf = (id) => page.images[position.get(id)];
const inModality = (id) => !modality() || imageOf(id).modality === modality();
const prediction = (id, name) => new Map(Object.entries(pictures.get(id).predicted)).get(name);
const hasPictures = (name) => [...pictures.keys()].some((id) => prediction(id, name));

// --- leaderboard and charts ---------------------------------------------------------------------------------------

function rankByModality() {
  const table = byId("ranking");
  const wanted = modality() || "";
  const headings = [...table.tHead.rows[0].cells];
  const heading = headings.find((cell) => (wanted ? cell.dataset.modality === wanted : cell.id === "score-column"));
  sortTable(table, heading.cellIndex, true);
  const box = table.closest(".scroll"), frozen = headings[0].offsetWidth;
  box.scrollLeft = Math.max(0, heading.offsetLeft + heading.offsetWidth / 2 - (box.clientWidth + frozen) / 2);
}

function drawRows() {
  for (const row of document.querySelectorAll("tr[data-experiment]")) row.hidden = !visible(row.dataset.experiment);
  for (const cell of document.querySelectorAll("[data-modality]"))
    cell.classList.toggle("chosen", cell.dataset.modality === modality());
}

function drawParts() {
  const part = (experiment, name = modality()) => new Map(Object.entries(experiment.parts)).get(name);
  const shown = page.experiments.filter((one) => visible(one.name) && part(one));
  const images = Math.max(0, ...shown.map((one) => part(one).images));
  byId("parts-note").textContent = modality()
    ? `On the ${images} images of ${words(modality())}.`
    : `On all ${images} images; choose a modality above to see its own.`;
  const line = (one, points) => ({ name: one.name, colour: colour(one.name), points });
  const byThreshold = shown.map((one) => line(one, part(one).ap.map((ap, index) => [page.thresholds[index], ap ?? NaN])));
  lineChart(byId("by-threshold"), byThreshold, { low: 0, label: "IoU", dots: true });
  const all = new Set(page.experiments.flatMap((one) => Object.keys(one.parts)));
  const modalities = [...all].filter((name) => name && (!modality() || name === modality())).sort();
  dotChart(byId("by-modality"), modalities.map((name) => {
    const having = page.experiments.filter((one) => visible(one.name) && part(one, name));
    const count = Math.max(0, ...having.map((one) => part(one, name).images));
    const dots = having.map((one) => ({ name: one.name, colour: colour(one.name), value: part(one, name).score }));
    return { label: `${words(name)}, ${count} images`, dots };
  }));
  drawSizes(shown.filter((one) => part(one).sizes).map((one) => ({ ...line(one), sizes: part(one).sizes })));
}

// The fraction of annotated nuclei that are found, by their size; sizes that no image has are left out.
function drawSizes(lines) {
  const at = Number(byId("found").value) + 1;
  const indices = page.sizes.map((_, index) => index);
  const kept = indices.filter((index) => lines.some((one) => one.sizes[index][0] > 0));
  const shortName = (size) => size.replace("under ", "< ").replace(" to ", "–").replace(" and more", "+");
  const series = lines.map((one) => ({
    ...one,
    points: kept.map((size, index) => [index, one.sizes[size][at] / one.sizes[size][0]]),
  }));
  const options = { names: kept.map((index) => shortName(page.sizes[index])), label: "pixels", dots: true };
  lineChart(byId("by-size"), series, { low: 0, high: 1, ...options });
}

function drawCurves() {
  const along = byId("against").value;
  const shown = page.curves.filter((one) => visible(one.experiment));
  const empty = "No learning curves on this machine: they are in the runs.";
  for (const [place, key] of [["curve-loss", "loss"], ["curve-score", "validation_score"]]) {
    const series = shown.map((one) => ({
      name: `${one.experiment}, fold ${one.fold}`,
      colour: colour(one.experiment),
      faint: true,
      points: one[along].map((x, index) => [x ?? NaN, one[key][index] ?? NaN]),
    }));
    lineChart(byId(place), series, { low: 0, label: along === "step" ? "steps" : "minutes", empty });
  }
}

// --- images -------------------------------------------------------------------------------------------------------

// The image with outlines: errors shows missed and split annotations and extra and merged predictions over thin hits.
function pictureOf(id, name, attributes = {}) {
  const picture = pictures.get(id), made = prediction(id, name), paths = [];
  if (layer() === "truth") paths.push(outlines(picture.truth, null, "hit"));
  if (layer() === "predicted" && made) paths.push(outlines(made.paths, null, "extra"));
  if (layer() === "errors" && made) {
    paths.push(outlines(made.paths, made.kinds, "hit", false, true));
    for (const kind of ["missed", "split"]) paths.push(outlines(picture.truth, made.truth, kind));
    for (const kind of ["extra", "merged"]) paths.push(outlines(made.paths, made.kinds, kind, true));
  }
  return pictureSvg(picture, paths, { "data-image": id, "data-layer": layer(), ...attributes });
}

// The caption of an image: what an experiment scores on it.
function describe(id, name) {
  const index = position.get(id), image = page.images[index], result = results.get(name);
  const kinds = ["missed", "extra", "split", "merged"].filter((kind) => result[kind][index]);
  const counts = kinds.map((kind) => `${result[kind][index]} ${kind}`).join(", ");
  return [
    element("b", {}, result.score[index].toFixed(3)),
    ` \u00a0${words(image.modality)}, fold ${image.fold}`,
    element("br"),
    `${image.nuclei} nuclei, ${result.predicted[index]} predicted: ${counts || "no errors"}`,
    element("br"),
    element("span", { title: id }, id.slice(0, 12)),
  ];
}

function drawGallery() {
  const name = byId("gallery-experiment").value;
  if (!name) {
    byId("gallery-note").textContent = "No experiment here was recorded with its images.";
    byId("more").hidden = true;
    return;
  }
  const withPictures = hasPictures(name);
  const sign = byId("gallery-order").value === "worst" ? 1 : -1;
  const pool = (withPictures ? [...pictures.keys()] : page.images.map((image) => image.id)).filter(inModality);
  pool.sort((a, b) => sign * (score(name, a) - score(name, b)) || (a < b ? -1 : 1));
  const which = modality() ? " of this modality" : "";
  byId("gallery-note").textContent = withPictures
    ? `Of the ${pool.length} images that this page holds${which}; among them are the worst and the best of every ` +
      "experiment. Click one to compare it; arrow keys move between them."
    : "This machine has no maps of this experiment, so its images are listed without pictures.";
  byId("cards").replaceChildren(...pool.slice(0, cardsShown).map((id, index) => card(id, name, withPictures, index)));
  byId("more").hidden = pool.length <= cardsShown;
}

function card(id, name, withPictures, index) {
  const caption = element("figcaption", {}, ...describe(id, name));
  if (!withPictures) return element("figure", { "data-image": id }, caption);
  // one card is in the order of the Tab key, arrow keys reach the others
  const attributes = { class: "open", role: "button", tabindex: index ? -1 : 0, "data-image": id };
  return element("figure", attributes, pictureOf(id, name), caption);
}

function moveAmongCards(event) {
  const cards = [...byId("cards").children], at = cards.indexOf(document.activeElement);
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const columns = cards.filter((one) => one.offsetTop === cards[0].offsetTop).length;
  const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns };
  const target = { ...moves, Home: 0, End: cards.length - 1 }[event.key];
  if (event.key === "Enter" || event.key === " ") openCard(cards[at]);
  else if (target === undefined) return;
  else if (cards[target]) {
    cards[at].tabIndex = -1;
    cards[target].tabIndex = 0;
    cards[target].focus();
  }
  event.preventDefault();
}

function openCard(chosen) {
  const name = byId("gallery-experiment").value;
  if (![byId("left").value, byId("right").value].includes(name)) byId("left").value = name;
  compare(chosen.dataset.image);
  byId("compare").scrollIntoView({ behavior: "smooth" });
}

// --- side by side -------------------------------------------------------------------------------------------------

const zoom = new Zoom([byId("pair-left"), byId("pair-right")], writeAddress);

function drawCompare() {
  const left = byId("left").value, right = byId("right").value;
  byId("compare").hidden = !left;
  if (!left) return;
  const gap = (id) => Math.abs(score(right, id) - score(left, id));
  const pool = [...pictures.keys()].filter(inModality).sort((a, b) => gap(b) - gap(a) || (a < b ? -1 : 1));
  fill(byId("image"), pool.map((id) => [id, optionText(id, left, right)]));
  const id = byId("image").value;
  for (const [place, name] of [["pair-left", left], ["pair-right", right]]) {
    byId(place).hidden = !id;
    if (!id) continue;
    const missing = prediction(id, name) ? "" : " (no maps of it on this machine)";
    const caption = [dot(colour(name)), ` ${name}${missing}`, element("br"), ...describe(id, name)];
    const label = `${name} on image ${id}; plus and minus zoom, arrow keys move`;
    const svg = pictureOf(id, name, { tabindex: 0, role: "img", "aria-label": label });
    byId(place).replaceChildren(svg, element("figcaption", {}, ...caption));
  }
  zoom.apply();
  drawScatter(left, right, id);
}

const optionText = (id, left, right) =>
  `${score(left, id).toFixed(2)} → ${score(right, id).toFixed(2)}  ${words(imageOf(id).modality)}  ${id.slice(0, 8)}`;

function drawScatter(left, right, chosen) {
  const modalities = [...new Set(page.images.map((image) => image.modality))].sort();
  const tint = (name) => `var(--e${modalities.indexOf(name) % 10})`;
  const edge = 34;
  showChart(byId("scatter"), (width) => {
    const height = width;
    const x = (value) => edge + value * (width - edge - 10), y = (value) => height - edge - value * (height - edge - 10);
    const grid = [0, 0.25, 0.5, 0.75, 1].flatMap((tick) => [
      text(x(tick), height - edge + 16, "middle", String(tick)),
      text(edge - 6, y(tick) + 4, "end", String(tick)),
    ]);
    const diagonal = shape("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) });
    const titles = [text(x(1), height - 4, "end", left), text(edge + 6, 14, "start", right)];
    const points = page.images.filter((image) => inModality(image.id)).map((image) => {
      const [first, second] = [score(left, image.id), score(right, image.id)], isChosen = image.id === chosen;
      const look = { r: isChosen ? 7 : 3.4, opacity: isChosen ? 1 : 0.6, fill: tint(image.modality) };
      const ring = pictures.has(image.id) ? { class: "ringed", "data-image": image.id, stroke: "currentColor" } : {};
      const circle = shape("circle", { cx: x(first).toFixed(1), cy: y(second).toFixed(1), ...look, ...ring });
      return withTitle(circle, `${words(image.modality)} ${image.id.slice(0, 12)}: ${first} and ${second}`);
    });
    return { height, attributes: {}, shapes: [diagonal, ...grid, ...titles, ...points] };
  });
  const items = modalities.map((name) => [words(name), tint(name)]);
  byId("scatter").append(element("p", { class: "legend" }, ...legend(items)));
}

function compare(id) {
  fill(byId("image"), [...pictures.keys()].map((one) => [one, one]), id);
  Object.assign(zoom, { scale: 1, x: 0.5, y: 0.5 });
  drawCompare();
  writeAddress();
}

// --- what is chosen, and the address that says so -----------------------------------------------------------------

function drawAll() {
  drawRows();
  drawParts();
  drawCurves();
  drawGallery();
  drawCompare();
}

// Offers the experiments that are not hidden. Left and right are the best two that differ, those with pictures first.
function offerExperiments() {
  const shown = scored.filter(visible);
  const offered = shown.length ? shown : scored;
  for (const id of ["gallery-experiment", "left", "right"]) fill(byId(id), offered.map((name) => [name, name]));
  if (byId("left").value === byId("right").value) {
    const other = byPictures(offered).find((name) => name !== byId("left").value);
    if (other) byId("right").value = other;
  }
}

const byPictures = (list) => [...list.filter(hasPictures), ...list.filter((name) => !hasPictures(name))];

const FIELDS = ["modality", "found", "against", "gallery-experiment", "gallery-order", "left", "right"];
const firstOption = (id) => byId(id).options[0]?.value ?? "";
let defaults = {};

function writeAddress() {
  const address = new URLSearchParams();
  for (const id of FIELDS) if (byId(id).value !== defaults[id]) address.set(id, byId(id).value);
  if (layer() !== "errors") address.set("layer", layer());
  for (const name of hidden) address.append("hidden", name);
  if (byId("image").value !== firstOption("image")) address.set("image", byId("image").value);
  if (zoom.scale > 1) address.set("zoom", [zoom.scale, zoom.x, zoom.y].map((value) => value.toFixed(3)).join("_"));
  const sorted = byId("ranking").querySelector("th[aria-sort]");
  if (sorted) address.set("sort", `${sorted.getAttribute("aria-sort")} ${sorted.textContent.trim()}`);
  history.replaceState(null, "", `#${address}`);
}

// Chooses what the address says, as far as this page has it.
function readAddress() {
  if (!location.hash.includes("=")) return;
  const address = new URLSearchParams(location.hash.slice(1));
  const choose = (select, value) => {
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  };
  hidden.clear();
  for (const name of address.getAll("hidden")) if (names.includes(name)) hidden.add(name);
  for (const box of byId("chips").querySelectorAll("input")) box.checked = visible(box.value);
  offerExperiments();
  for (const id of FIELDS) choose(byId(id), address.get(id) ?? defaults[id]);
  for (const select of document.querySelectorAll(".layer")) choose(select, address.get("layer") ?? "errors");
  rankByModality();
  const [direction, ...title] = (address.get("sort") ?? "").split(" ");
  const headings = [...byId("ranking").tHead.rows[0].cells];
  const sorted = headings.find((cell) => cell.textContent.trim() === title.join(" "));
  if (sorted) sortTable(byId("ranking"), sorted.cellIndex, direction === "descending");
  const [scale, x, y] = (address.get("zoom") ?? "1_0.5_0.5").split("_").map(Number);
  if (finite([scale, x, y]).length === 3) Object.assign(zoom, { scale: Math.min(Math.max(scale, 1), 16), x, y });
  drawAll();
  choose(byId("image"), address.get("image") ?? firstOption("image"));
  drawCompare();
}

function listen(id, event, action) {
  byId(id).addEventListener(event, (given) => {
    action(given);
    writeAddress();
  });
}

function offerChips() {
  const chip = (name) => {
    const box = element("input", { type: "checkbox", value: name });
    box.checked = true;
    return element("label", { class: "chip" }, box, dot(colour(name)), name);
  };
  byId("chips").replaceChildren(...names.map(chip));
  listen("chips", "change", (event) => {
    hidden[event.target.checked ? "delete" : "add"](event.target.value);
    offerExperiments();
    drawAll();
  });
}

function offerLayers() {
  for (const select of document.querySelectorAll(".layer")) {
    fill(select, Object.entries(LAYERS));
    select.addEventListener("change", () => {
      for (const other of document.querySelectorAll(".layer")) other.value = select.value;
      drawGallery();
      drawCompare();
      writeAddress();
    });
  }
  drawErrorLegend();
}

offerChips();
offerLayers();
listen("modality", "change", () => {
  cardsShown = PAGE;
  rankByModality();
  drawAll();
});
fill(byId("found"), page.found.map((value, index) => [String(index), value.toFixed(2)]));
listen("found", "change", drawParts);
listen("against", "change", drawCurves);
for (const id of ["gallery-experiment", "gallery-order"])
  listen(id, "change", () => {
    cardsShown = PAGE;
    drawGallery();
  });
listen("more", "click", () => {
  cardsShown += PAGE;
  drawGallery();
});
for (const id of ["left", "right"]) listen(id, "change", drawCompare);
listen("image", "change", () => compare(byId("image").value));
for (const [id, step] of [["previous", -1], ["next", 1]])
  listen(id, "click", () => {
    const select = byId("image"), count = select.options.length;
    if (count) compare(select.options[(select.selectedIndex + step + count) % count].value);
  });
for (const [id, factor] of [["zoom-in", 1.5], ["zoom-out", 1 / 1.5], ["zoom-reset", 0]])
  byId(id).addEventListener("click", () => zoom.set(zoom.scale * factor));
byId("cards").addEventListener("click", (event) => {
  const chosen = event.target.closest("figure.open");
  if (chosen) openCard(chosen);
});
byId("cards").addEventListener("keydown", moveAmongCards);
byId("scatter").addEventListener("click", (event) => event.target.dataset.image && compare(event.target.dataset.image));
byId("ranking").addEventListener("sorted", writeAddress);
// a link to a section scrolls, and leaves what is chosen in the address
for (const link of document.querySelectorAll("nav a"))
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.querySelector(link.hash).scrollIntoView({ behavior: "smooth" });
  });

offerExperiments();
const [best, second] = byPictures(scored);
if (best) byId("gallery-experiment").value = byId("left").value = best;
if (second) byId("right").value = second;
defaults = Object.fromEntries(FIELDS.map((id) => [id, byId(id).value]));
drawAll();
readAddress();
addEventListener("hashchange", readAddress);
onResize(drawAll);
