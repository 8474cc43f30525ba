// Images with outlines of their nuclei, and a zoom that several of them share.

const rgb = (kind) => `rgb(${page.colours[kind].join(",")})`;
// Kinds of errors of annotated and predicted nuclei; those of predicted ones alone are dashed.
const KINDS = {
  missed: "missed: no prediction fits",
  split: "split into several",
  extra: "extra: fits no nucleus",
  merged: "several merged into one",
  hit: "found (IoU above 0.5)",
};
const DASHED = ["extra", "merged"];

function drawErrorLegend() {
  const swatch = (kind) => {
    const line = element("i", { class: DASHED.includes(kind) ? "swatch dashed" : "swatch" });
    line.style.borderColor = rgb(kind);
    return line;
  };
  byId("error-legend").replaceChildren(
    ...Object.entries(KINDS).map(([kind, meaning]) => element("span", {}, swatch(kind), meaning)),
  );
}

// A path through the outlines of a kind, or through all where no letter of the kinds is given for each.
function outlines(list, letters, kind, dashed, thin) {
  const letter = kind === "merged" ? "g" : kind[0];
  const d = list.filter((_, index) => !letters || letters[index] === letter).join("");
  if (!d) return null;
  const look = { stroke: rgb(kind), "stroke-dasharray": dashed ? "5 3" : null, opacity: thin ? 0.6 : null };
  return shape("path", { d, ...look, class: thin ? `${kind} thin` : kind });
}

function pictureSvg(picture, paths, attributes = {}) {
  const { width, height } = picture;
  const image = shape("image", { href: picture.src, width, height });
  const group = shape("g", { transform: "translate(.5 .5)" }, ...paths);
  return shape("svg", { class: "picture", viewBox: `0 0 ${width} ${height}`, ...attributes }, image, group);
}

// One zoom for the pictures in `places`: the scale, and the centre in fractions of width and height. Buttons, keys,
// dragging and the wheel (with Ctrl, or once a picture has the focus) change it; `changed` is called afterwards.
class Zoom {
  constructor(places, changed) {
    this.places = places;
    this.changed = changed;
    Object.assign(this, { scale: 1, x: 0.5, y: 0.5 });
    for (const place of places) this.listen(place);
  }

  set(scale, x = this.x, y = this.y) {
    this.scale = Math.min(Math.max(scale, 1), 16);
    const margin = 0.5 / this.scale;
    this.x = Math.min(Math.max(x, margin), 1 - margin);
    this.y = Math.min(Math.max(y, margin), 1 - margin);
    this.apply();
    this.changed();
  }

  apply() {
    for (const place of this.places) {
      const svg = place.querySelector("svg.picture");
      if (!svg) continue;
      const image = svg.querySelector("image");
      const width = Number(image.getAttribute("width")), height = Number(image.getAttribute("height"));
      const [w, h] = [width / this.scale, height / this.scale];
      svg.setAttribute("viewBox", `${this.x * width - w / 2} ${this.y * height - h / 2} ${w} ${h}`);
      svg.classList.toggle("zoomed", this.scale > 1);
    }
  }

  // Zooms so that what lies under a point of the picture stays there; u and v are fractions of the picture as shown.
  zoomAt(factor, u, v) {
    const scale = Math.min(Math.max(this.scale * factor, 1), 16);
    const move = 1 / this.scale - 1 / scale;
    this.set(scale, this.x + (u - 0.5) * move, this.y + (v - 0.5) * move);
  }

  listen(place) {
    place.addEventListener("wheel", (event) => {
      const svg = event.target.closest("svg.picture");
      if (!svg || !(event.ctrlKey || event.metaKey || document.activeElement === svg)) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      this.zoomAt(Math.exp(-event.deltaY / 300), u, v);
    }, { passive: false });
    place.addEventListener("keydown", (event) => this.press(event));
    place.addEventListener("pointerdown", (event) => {
      const svg = event.target.closest("svg.picture");
      if (!svg || this.scale === 1 || event.button) return;
      svg.setPointerCapture(event.pointerId);
      this.grabbed = { x: event.clientX, y: event.clientY };
    });
    place.addEventListener("pointermove", (event) => {
      if (!this.grabbed) return;
      const box = event.target.closest("svg.picture").getBoundingClientRect();
      const dx = (event.clientX - this.grabbed.x) / box.width / this.scale;
      const dy = (event.clientY - this.grabbed.y) / box.height / this.scale;
      this.grabbed = { x: event.clientX, y: event.clientY };
      this.set(this.scale, this.x - dx, this.y - dy);
    });
    for (const end of ["pointerup", "pointercancel"]) place.addEventListener(end, () => (this.grabbed = null));
  }

  press(event) {
    const step = 0.15 / this.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.set(this.scale * 1.5);
    else if (event.key === "-") this.set(this.scale / 1.5);
    else if (event.key === "0") this.set(1);
    else if (moves[event.key] && this.scale > 1)
      this.set(this.scale, this.x + moves[event.key][0], this.y + moves[event.key][1]);
    else return;
    event.preventDefault();
  }
}
