// The page of a screening: the images that differ most, the reference on the left and the idea on the right.

const pictures = new Map(Object.entries(page.pictures));
const LAYERS = { errors: "the errors", truth: "the annotation", none: "the image alone" };

function figure(image, name, score) {
  const picture = pictures.get(image.image_id);
  const made = new Map(Object.entries(picture.predicted)).get(name);
  const paths = [];
  if (byId("layer").value === "truth") paths.push(outlines(picture.truth, null, "hit"));
  if (byId("layer").value === "errors") {
    paths.push(outlines(made.paths, made.kinds, "hit", false, true));
    for (const kind of ["missed", "split"]) paths.push(outlines(picture.truth, made.truth, kind));
    for (const kind of DASHED) paths.push(outlines(made.paths, made.kinds, kind, true));
  }
  const svg = pictureSvg(picture, paths, { role: "img", "aria-label": `${name} on image ${image.image_id}` });
  return element("figure", {}, svg, element("figcaption", {}, element("b", {}, score.toFixed(3)), ` \u00a0${name}`));
}

function draw() {
  const rows = page.images.map((image) => {
    const change = image.own - image.reference, sign = change < 0 ? "\u2212" : "+";
    const title = `${sign}${Math.abs(change).toFixed(3)}  ${words(image.modality)}, ${image.image_id.slice(0, 12)}`;
    const pair = [figure(image, page.reference, image.reference), figure(image, page.own, image.own)];
    return element("div", { class: "apart", "data-image": image.image_id }, element("h3", {}, title), element("div", { class: "pair" }, ...pair));
  });
  byId("rows").replaceChildren(...rows);
}

fill(byId("layer"), Object.entries(LAYERS));
byId("layer").addEventListener("change", draw);
drawErrorLegend();
draw();
