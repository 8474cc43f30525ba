const data = JSON.parse(document.getElementById("data").textContent);
const names = [...new Set([...data.experiments.map((one) => one.name), ...data.curves.map((one) => one.experiment)])];
const colour = (name) => `var(--e${names.indexOf(name) % 10})`;
const hidden = new Set();
const position = new Map(data.images.map((image, index) => [image.id, index]));
const drawn = Object.keys(data.pictures);
const results = Object.keys(data.results);
const PAGE = innerWidth < 640 ? 4 : 8;
let cardsShown = PAGE;

const modality = () => byId("modality").value;
const visible = (name) => !hidden.has(name);
const part = (experiment) => experiment.parts[modality()];
const score = (name, id) => data.results[name].score[position.get(id)];
const inModality = (id) => !modality() || data.images[position.get(id)].modality === modality();

function fill(select, options, chosen) {
  const before = chosen ?? select.value;
  select.innerHTML = options.map(([value, text]) => `<option value="${escapeText(value)}">${escapeText(text)}</option>`).join("");
  if (options.some(([value]) => value === before)) select.value = before;
}

function drawParts() {
  const shown = data.experiments.filter((one) => visible(one.name) && part(one));
  const images = Math.max(0, ...shown.map((one) => part(one).images));
  byId("parts-note").textContent = modality() ? `On the ${images} images of ${words(modality())}.` : `On all ${images} images; choose a modality above to see its own.`;
  lineChart(byId("by-threshold"), shown.map((one) => ({ name: one.name, colour: colour(one.name), points: part(one).ap.map((value, index) => [data.thresholds[index], value ?? NaN]) })), { low: 0, label: "IoU", dots: true });
  const modalities = [...new Set(data.experiments.flatMap((one) => Object.keys(one.parts)))].filter((name) => name && (!modality() || name === modality())).sort();
  dotChart(byId("by-modality"), modalities.map((name) => {
    const having = data.experiments.filter((one) => visible(one.name) && one.parts[name]);
    return { label: `${words(name)}, ${Math.max(0, ...having.map((one) => one.parts[name].images))} images`, dots: having.map((one) => ({ name: one.name, colour: colour(one.name), value: one.parts[name].score })) };
  }));
  const at = Number(byId("found").value) + 1;
  const sized = shown.filter((one) => part(one).sizes);
  const kept = data.sizes.map((_, index) => index).filter((index) => sized.some((one) => part(one).sizes[index][0] > 0));
  lineChart(byId("by-size"), sized.map((one) => ({ name: one.name, colour: colour(one.name), points: kept.map((size, index) => [index, part(one).sizes[size][at] / part(one).sizes[size][0]]) })), { low: 0, high: 1, names: kept.map((index) => data.sizes[index].replace("under ", "< ").replace(" to ", "–").replace(" and more", "+")), label: "pixels", dots: true });
}

function drawCurves() {
  const along = byId("against").value;
  const shown = data.curves.filter((one) => visible(one.experiment));
  const series = (key) => shown.map((one) => ({ name: `${one.experiment}, fold ${one.fold}`, colour: colour(one.experiment), faint: true, points: one[along].map((x, index) => [x ?? NaN, one[key][index] ?? NaN]) }));
  const empty = "No learning curves on this machine: they are in the runs.";
  lineChart(byId("curve-loss"), series("loss"), { low: 0, label: along === "step" ? "steps" : "minutes", empty });
  lineChart(byId("curve-score"), series("validation_score"), { low: 0, label: along === "step" ? "steps" : "minutes", empty });
}

// The image with outlines: errors shows missed and split annotations and extra and merged predictions over thin hits.
function pictureOf(id, name, layer) {
  const picture = data.pictures[id], made = picture.predicted[name];
  let svg = "";
  if (layer === "truth") svg += outlines(picture.truth, null, "hit");
  if (layer === "predicted" && made) svg += outlines(made.paths, null, "extra");
  if (layer === "errors" && made) {
    svg += outlines(made.paths, made.kinds, "hit", false, true) + outlines(picture.truth, made.truth, "missed") + outlines(picture.truth, made.truth, "split");
    svg += outlines(made.paths, made.kinds, "extra", true) + outlines(made.paths, made.kinds, "merged", true);
  }
  return pictureSvg(picture, svg, `data-image="${id}" data-layer="${layer}"`);
}

function describe(id, name) {
  const index = position.get(id), image = data.images[index], result = data.results[name];
  const counts = ["missed", "extra", "split", "merged"].filter((kind) => result[kind][index]).map((kind) => `${result[kind][index]} ${kind}`).join(", ");
  return `<b>${result.score[index].toFixed(3)}</b> &nbsp;${escapeText(words(image.modality))}, fold ${image.fold}<br>${image.nuclei} nuclei, ${result.predicted[index]} predicted: ${counts || "no errors"}<br><span title="${id}">${id.slice(0, 12)}</span>`;
}

function drawGallery() {
  const name = byId("gallery-experiment").value;
  if (!name) {
    byId("gallery-note").textContent = "No experiment here was recorded with its images.";
    byId("more").hidden = true;
    return;
  }
  const withPictures = drawn.some((id) => data.pictures[id].predicted[name]);
  const sign = byId("gallery-order").value === "worst" ? 1 : -1;
  const pool = (withPictures ? drawn : data.images.map((image) => image.id)).filter(inModality);
  pool.sort((a, b) => sign * (score(name, a) - score(name, b)) || (a < b ? -1 : 1));
  byId("gallery-note").textContent = withPictures
    ? `Of the ${pool.length} images that this page holds${modality() ? " of this modality" : ""}; among them are the worst and the best of every experiment. Click one to compare it.`
    : "This machine has no maps of this experiment, so its images are listed without pictures.";
  const layer = document.querySelector(".layer").value;
  byId("cards").innerHTML = pool.slice(0, cardsShown).map((id) => `<figure class="${withPictures ? "open" : ""}" data-image="${id}">${withPictures ? pictureOf(id, name, layer) : ""}<figcaption>${describe(id, name)}</figcaption></figure>`).join("");
  byId("more").hidden = pool.length <= cardsShown;
}

function drawCompare() {
  const left = byId("left").value, right = byId("right").value;
  if (!left) {
    byId("compare").hidden = true;
    return;
  }
  const gap = (id) => score(right, id) - score(left, id);
  const pool = drawn.filter(inModality).sort((a, b) => Math.abs(gap(b)) - Math.abs(gap(a)) || (a < b ? -1 : 1));
  fill(byId("image"), pool.map((id) => [id, `${score(left, id).toFixed(2)} → ${score(right, id).toFixed(2)}  ${words(data.images[position.get(id)].modality)}  ${id.slice(0, 8)}`]));
  const id = byId("image").value, layer = document.querySelector(".layer").value;
  for (const [place, name] of [["pair-left", left], ["pair-right", right]]) {
    byId(place).hidden = !id;
    if (id) byId(place).innerHTML = `${pictureOf(id, name, layer)}<figcaption><i class="dot" style="background:${colour(name)}"></i> ${escapeText(name)}${data.pictures[id].predicted[name] ? "" : " (no maps of it on this machine)"}<br>${describe(id, name)}</figcaption>`;
  }
  drawScatter(left, right, id);
}

function drawScatter(left, right, chosen) {
  const place = byId("scatter"), width = Math.max(place.clientWidth, 240), height = width, edge = 34;
  const at = (value) => edge + value * (width - edge - 10), up = (value) => height - edge - value * (height - edge - 10);
  let svg = `<line class="diagonal" x1="${at(0)}" y1="${up(0)}" x2="${at(1)}" y2="${up(1)}"/>`;
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) svg += `<text x="${at(tick)}" y="${height - edge + 16}" text-anchor="middle">${tick}</text><text x="${edge - 6}" y="${up(tick) + 4}" text-anchor="end">${tick}</text>`;
  svg += `<text x="${at(1)}" y="${height - 4}" text-anchor="end">${escapeText(left)}</text><text x="${edge + 6}" y="14">${escapeText(right)}</text>`;
  const modalities = [...new Set(data.images.map((image) => image.modality))].sort();
  for (const image of data.images) {
    if (!inModality(image.id)) continue;
    const open = image.id in data.pictures;
    svg += `<circle cx="${at(score(left, image.id)).toFixed(1)}" cy="${up(score(right, image.id)).toFixed(1)}" r="${image.id === chosen ? 7 : 3.4}" fill="var(--e${modalities.indexOf(image.modality) % 10})" opacity="${image.id === chosen ? 1 : 0.6}" ${open ? `data-image="${image.id}" stroke="currentColor" style="cursor:pointer"` : ""}><title>${escapeText(words(image.modality))} ${image.id.slice(0, 12)}: ${score(left, image.id)} and ${score(right, image.id)}</title></circle>`;
  }
  place.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" height="${height}">${svg}</svg><p class="legend">${modalities.map((name, index) => `<span><i class="dot" style="background:var(--e${index % 10})"></i>${escapeText(words(name))}</span>`).join("")}</p>`;
}

function drawRows() {
  for (const row of document.querySelectorAll("tr[data-experiment]")) row.hidden = hidden.has(row.dataset.experiment);
  for (const cell of document.querySelectorAll("[data-modality]")) cell.classList.toggle("chosen", cell.dataset.modality === modality());
}

function drawAll() {
  drawRows();
  drawParts();
  drawCurves();
  drawGallery();
  drawCompare();
}

function offerExperiments() {
  const choices = results.filter(visible).map((name) => [name, name]);
  const offered = choices.length ? choices : results.map((name) => [name, name]);
  for (const id of ["gallery-experiment", "left", "right"]) fill(byId(id), offered);
}

function compare(id) {
  fill(byId("image"), drawn.map((one) => [one, one]), id);
  drawCompare();
}

byId("chips").innerHTML = names.map((name) => `<label class="chip"><input type="checkbox" checked value="${escapeText(name)}"><i class="dot" style="background:${colour(name)}"></i>${escapeText(name)}</label>`).join("");
byId("chips").addEventListener("change", (event) => {
  hidden[event.target.checked ? "delete" : "add"](event.target.value);
  offerExperiments();
  drawAll();
});
byId("modality").addEventListener("change", () => {
  cardsShown = PAGE;
  drawAll();
});
fill(byId("found"), data.found.map((value, index) => [String(index), value.toFixed(2)]));
byId("found").addEventListener("change", drawParts);
byId("against").addEventListener("change", drawCurves);
for (const id of ["gallery-experiment", "gallery-order"])
  byId(id).addEventListener("change", () => {
    cardsShown = PAGE;
    drawGallery();
  });
byId("more").addEventListener("click", () => {
  cardsShown += PAGE;
  drawGallery();
});
for (const layer of document.querySelectorAll(".layer"))
  layer.addEventListener("change", () => {
    for (const other of document.querySelectorAll(".layer")) other.value = layer.value;
    drawGallery();
    drawCompare();
  });
for (const id of ["left", "right", "image"]) byId(id).addEventListener("change", drawCompare);
for (const [id, step] of [["previous", -1], ["next", 1]])
  byId(id).addEventListener("click", () => {
    const select = byId("image"), count = select.options.length;
    if (count) select.selectedIndex = (select.selectedIndex + step + count) % count;
    drawCompare();
  });
byId("cards").addEventListener("click", (event) => {
  const card = event.target.closest("figure.open");
  if (!card) return;
  byId("left").value === byId("gallery-experiment").value || byId("right").value === byId("gallery-experiment").value || (byId("left").value = byId("gallery-experiment").value);
  compare(card.dataset.image);
  byId("compare").scrollIntoView({ behavior: "smooth" });
});
byId("scatter").addEventListener("click", (event) => event.target.dataset.image && compare(event.target.dataset.image));
const said = { missed: "missed: no prediction fits", split: "split into several", extra: "extra: fits no nucleus", merged: "several merged into one", hit: "found (IoU above 0.5)" };
byId("error-legend").innerHTML = Object.entries(said).map(([kind, text]) => `<span><i class="swatch ${kind === "extra" || kind === "merged" ? "dashed" : ""}" style="border-color:${rgb(kind)}"></i>${text}</span>`).join("");
offerExperiments();
const second = results.find((name) => name !== byId("left").value && drawn.some((id) => data.pictures[id].predicted[name]));
if (second) byId("right").value = second;
const first = results.find((name) => drawn.some((id) => data.pictures[id].predicted[name]));
if (first) byId("gallery-experiment").value = first;
let timer;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(drawAll, 150);
});
drawAll();
