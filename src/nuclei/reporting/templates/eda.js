const data = JSON.parse(document.getElementById("data").textContent);
const tint = (index) => `var(--e${index % 10})`;
const PAGE = innerWidth < 640 ? 4 : 12;
let cardsShown = PAGE;

const modality = () => byId("modality").value;
const place = () => byId("place").value;
const matches = (name, where) => (!modality() || modality() === name) && (!place() || place() === where);
const placeOf = (finding) => (finding.fold === null ? "train" : `fold ${finding.fold}`);
const legend = (items) => items.map(([name, colour]) => `<span><i class="dot" style="background:${colour}"></i>${escapeText(name)}</span>`).join("");

function drawCharts() {
  const colour = (name) => tint(data.modalities.indexOf(name));
  const chosen = (name) => !modality() || modality() === name;
  for (const [key, unit] of [["nuclei", "images"], ["area", "nuclei"], ["diameter", "nuclei"]])
    rangeChart(byId(`range-${key}`), data.ranges[key].filter((row) => chosen(row.name)).map((row) => ({ label: `${words(row.name)}, ${row.count.toLocaleString("en")} ${unit}`, colour: colour(row.name), quantiles: row.quantiles })));
  const shares = data.modalities.filter((name) => chosen(name) && data.diameters.shares[name]).map((name) => [name, data.diameters.shares[name]]);
  lineChart(byId("diameters"), shares.map(([name, values]) => ({ name: words(name), colour: colour(name), points: values.map((value, index) => [index, value]) })), { low: 0, names: data.diameters.limits.map((limit, index) => (index % 2 ? "" : String(limit))), label: "pixels, from", dots: true });
  byId("diameter-legend").innerHTML = legend(shares.map(([name]) => [words(name), colour(name)]));
  const rows = data.touching.filter((row) => chosen(row.name));
  for (const key of ["touching", "boundary"])
    dotChart(byId(key === "touching" ? "touching-nuclei" : "touching-boundary"), rows.map((row) => ({
      label: `${words(row.name)}, ${(row[key] * 100).toFixed(1)}% of ${row.nuclei.toLocaleString("en")} nuclei`,
      dots: (row.folds.length ? row.folds : [{ fold: null, ...row }]).map((fold) => ({ name: fold.fold === null ? "all" : `fold ${fold.fold}`, colour: tint(fold.fold ?? 0), value: fold[key] })),
    })));
  const folds = [...new Set(data.touching.flatMap((row) => row.folds.map((fold) => fold.fold)))].sort((a, b) => a - b);
  byId("fold-legend").innerHTML = legend(folds.map((fold) => [`fold ${fold}`, tint(fold)]));
}

function describe(finding) {
  const where = finding.fold === null ? "" : `, fold ${finding.fold}`;
  return `<b>${escapeText(finding.reason)}</b> &nbsp;${escapeText(finding.words)}<br>${escapeText(words(finding.modality))}${where}<br><span title="${finding.image_id}">${finding.image_id.slice(0, 12)}</span>`;
}

function closeUp(picture) {
  if (!picture) return "";
  return pictureSvg(picture, outlines(picture.truth, picture.kinds, "hit", false, true) + outlines(picture.truth, picture.kinds, "missed") + outlines(picture.found, null, "extra", true));
}

function drawFindings() {
  const reason = byId("reason").value;
  const pool = data.findings.filter((one) => (!reason || one.reason === reason) && matches(one.modality, placeOf(one)));
  byId("finding-note").textContent = `${pool.length} of ${data.findings.length}`;
  byId("findings").innerHTML = pool.slice(0, cardsShown).map((one) => `<figure data-image="${one.image_id}" data-reason="${one.reason}">${closeUp(one.picture)}<figcaption>${describe(one)}</figcaption></figure>`).join("");
  byId("more").hidden = pool.length <= cardsShown;
  for (const row of byId("all-findings").tBodies[0].rows) row.hidden = (reason && row.dataset.reason !== reason) || !matches(row.dataset.modality, row.dataset.place);
}

function thumbnail(id) {
  const picture = data.thumbnails[id], nuclei = data.nuclei[id];
  const drawn = byId("layer").value === "truth" ? outlines(picture.truth, null, "hit") : "";
  return `<figure data-image="${id}" title="${id}">${pictureSvg(picture, drawn)}<figcaption>${nuclei === undefined ? `${picture.height} &times; ${picture.width}` : `${nuclei} ${nuclei === 1 ? "nucleus" : "nuclei"}`}</figcaption></figure>`;
}

function drawSheets() {
  const shown = data.sheets.filter((sheet) => matches(sheet.modality, sheet.place));
  const names = data.modalities.filter((name) => shown.some((sheet) => sheet.modality === name));
  byId("sheet-list").innerHTML = names.length ? names.map((name) => `<h3 class="apart">${escapeText(words(name))}</h3>` + shown.filter((sheet) => sheet.modality === name).map((sheet) => `<div class="sheet" data-modality="${escapeText(name)}" data-place="${sheet.place}"><p class="note"><b>${sheet.place}</b> <br>${sheet.total} image${sheet.total === 1 ? "" : "s"}</p><div class="thumbnails">${sheet.images.map(thumbnail).join("")}</div></div>`).join("")).join("") : '<p class="note">No image is of this modality and fold.</p>';
}

function drawAll() {
  for (const cell of document.querySelectorAll("#modalities [data-modality]")) cell.classList.toggle("chosen", cell.dataset.modality === modality());
  for (const cell of document.querySelectorAll("#modalities [data-place]")) cell.classList.toggle("chosen", cell.dataset.place === place());
  drawCharts();
  drawFindings();
  drawSheets();
}

for (const id of ["modality", "place", "reason"])
  byId(id).addEventListener("change", () => {
    cardsShown = PAGE;
    drawAll();
  });
byId("layer").addEventListener("change", drawSheets);
byId("more").addEventListener("click", () => {
  cardsShown += PAGE;
  drawFindings();
});
let timer;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(drawCharts, 150);
});
drawAll();
