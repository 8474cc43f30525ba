// The page of the data: a modality and a fold narrow charts, findings and contact sheets.

const tint = (index) => `var(--e${index % 10})`;
const PAGE = innerWidth < 640 ? 4 : 12;
const thumbnails = new Map(Object.entries(page.thumbnails));
const nucleiOf = new Map(Object.entries(page.nuclei));
let cardsShown = PAGE;

const modality = () => byId("modality").value;
const place = () => byId("place").value;
const isChosen = (name) => !modality() || modality() === name;
const matches = (name, where) => isChosen(name) && (!place() || place() === where);
const placeOf = (finding) => (finding.fold === null ? "train" : `fold ${finding.fold}`);
const colour = (name) => tint(page.modalities.indexOf(name));

function drawCharts() {
  for (const [key, unit] of [["nuclei", "images"], ["area", "nuclei"], ["diameter", "nuclei"]]) {
    const label = (row) => `${words(row.name)}, ${row.count.toLocaleString("en")} ${unit}`;
    const rows = page.ranges[key].filter((row) => isChosen(row.name));
    const drawn = rows.map((row) => ({ label: label(row), colour: colour(row.name), quantiles: row.quantiles }));
    rangeChart(byId(`range-${key}`), drawn);
  }
  drawDiameters();
  drawTouching();
}

function drawDiameters() {
  const fractions = new Map(Object.entries(page.diameters.fractions));
  const shown = page.modalities.filter((name) => isChosen(name) && fractions.has(name));
  const series = shown.map((name) => ({
    name: words(name),
    colour: colour(name),
    points: fractions.get(name).map((value, index) => [index, value]),
  }));
  const limits = page.diameters.limits.map((limit, index) => (index % 2 ? "" : String(limit)));
  lineChart(byId("diameters"), series, { low: 0, names: limits, label: "pixels, from", dots: true });
  byId("diameter-legend").replaceChildren(...legend(series.map((one) => [one.name, one.colour])));
}

function drawTouching() {
  const rows = page.touching.filter((row) => isChosen(row.name));
  for (const [id, key] of [["touching-nuclei", "touching"], ["touching-boundary", "boundary"]]) {
    const drawn = rows.map((row) => {
      const folds = row.folds.length ? row.folds : [{ fold: null, ...row }];
      const percent = (row[key] * 100).toFixed(1);
      return {
        label: `${words(row.name)}, ${percent}% of ${row.nuclei.toLocaleString("en")} nuclei`,
        dots: folds.map((one) => ({
          name: one.fold === null ? "all" : `fold ${one.fold}`,
          colour: tint(one.fold ?? 0),
          value: one[key],
        })),
      };
    });
    dotChart(byId(id), drawn);
  }
  const folds = [...new Set(page.touching.flatMap((row) => row.folds.map((one) => one.fold)))].sort((a, b) => a - b);
  byId("fold-legend").replaceChildren(...legend(folds.map((fold) => [`fold ${fold}`, tint(fold)])));
}

function findingCard(finding) {
  const { picture, reason, words: detail, image_id: id } = finding;
  const where = finding.fold === null ? "" : `, fold ${finding.fold}`;
  const caption = element(
    "figcaption",
    {},
    element("b", {}, reason),
    ` \u00a0${detail}`,
    element("br"),
    words(finding.modality) + where,
    element("br"),
    element("span", { title: id }, id.slice(0, 12)),
  );
  return element("figure", { "data-image": id, "data-reason": reason }, picture && closeUp(picture), caption);
}

const closeUp = (picture) =>
  pictureSvg(picture, [
    outlines(picture.truth, picture.kinds, "hit", false, true),
    outlines(picture.truth, picture.kinds, "missed"),
    outlines(picture.found, null, "extra", true),
  ]);

function drawFindings() {
  const reason = byId("reason").value;
  const isShown = (why, name, where) => (!reason || why === reason) && matches(name, where);
  const pool = page.findings.filter((one) => isShown(one.reason, one.modality, placeOf(one)));
  byId("finding-note").textContent = `${pool.length} of ${page.findings.length}`;
  byId("findings").replaceChildren(...pool.slice(0, cardsShown).map(findingCard));
  byId("more").hidden = pool.length <= cardsShown;
  for (const row of byId("all-findings").tBodies[0].rows)
    row.hidden = !isShown(row.dataset.reason, row.dataset.modality, row.dataset.place);
}

function thumbnail(id) {
  const picture = thumbnails.get(id), nuclei = nucleiOf.get(id);
  const paths = byId("layer").value === "truth" ? [outlines(picture.truth, null, "hit")] : [];
  const size = `${picture.height} × ${picture.width}`;
  const caption = nuclei === undefined ? size : `${nuclei} ${nuclei === 1 ? "nucleus" : "nuclei"}`;
  const attributes = { "data-image": id, title: id };
  return element("figure", attributes, pictureSvg(picture, paths), element("figcaption", {}, caption));
}

function drawSheet(sheet) {
  const count = `${sheet.total} image${sheet.total === 1 ? "" : "s"}`;
  const title = element("p", { class: "note" }, element("b", {}, sheet.place), " ", element("br"), count);
  const images = element("div", { class: "thumbnails" }, ...sheet.images.map(thumbnail));
  return element(
    "div",
    { class: "sheet", "data-modality": sheet.modality, "data-place": sheet.place },
    title,
    images,
  );
}

function drawSheets() {
  const shown = page.sheets.filter((sheet) => matches(sheet.modality, sheet.place));
  const names = page.modalities.filter((name) => shown.some((sheet) => sheet.modality === name));
  const parts = names.flatMap((name) => [
    element("h3", { class: "apart" }, words(name)),
    ...shown.filter((sheet) => sheet.modality === name).map(drawSheet),
  ]);
  byId("sheet-list").replaceChildren(...(parts.length ? parts : [note("No image is of this modality and fold.")]));
}

function drawSource(row) {
  const fold = row.held_out === "" ? [] : [element("br"), `held out in fold ${row.held_out}`];
  const counts = `${row.train} training, ${row.test} test`;
  const title = element(
    "p",
    { class: "note" },
    element("b", {}, words(row.source)),
    element("br"),
    counts,
    element("br"),
    row.sizes,
    ...fold,
  );
  return element("div", { class: "sheet source" }, title, element("div", { class: "thumbnails" }, ...row.images.map(thumbnail)));
}

function drawSources() {
  if (byId("source-list")) byId("source-list").replaceChildren(...page.sources.map(drawSource));
}

function drawAll() {
  for (const cell of document.querySelectorAll("#modalities [data-modality]"))
    cell.classList.toggle("chosen", cell.dataset.modality === modality());
  for (const cell of document.querySelectorAll("#modalities [data-place]"))
    cell.classList.toggle("chosen", cell.dataset.place === place());
  drawCharts();
  drawFindings();
  drawSheets();
}

for (const id of ["modality", "place", "reason"])
  byId(id).addEventListener("change", () => {
    cardsShown = PAGE;
    drawAll();
  });
byId("layer").addEventListener("change", () => {
  drawSheets();
  drawSources();
});
byId("more").addEventListener("click", () => {
  cardsShown += PAGE;
  drawFindings();
});
onResize(drawCharts);
drawAll();
drawSources();
