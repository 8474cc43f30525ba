"use strict";
// Elements of the page. Values of the data become text nodes and attributes, never HTML.

const byId = (id) => document.getElementById(id);
const words = (name) => name.replaceAll("_", " ");
const page = JSON.parse(byId("data").textContent);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

const element = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const note = (text) => element("p", { class: "note" }, text);

// A dot of a colour, as charts and legends have it. The style is set by script: the page's policy refuses attributes.
function dot(colour) {
  const mark = element("i", { class: "dot" });
  mark.style.background = colour;
  return mark;
}

const legend = (items) => items.map(([name, colour]) => element("span", {}, dot(colour), name));

// Replaces the options of a select by [value, text] pairs and keeps the chosen one where it is still offered.
function fill(select, options, chosen) {
  const before = chosen ?? select.value;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

// Sorts a table by a column: numbers by data-value, words by their letters, empty cells last, rows of class "other" at
// the end.
function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const order = (a, b) => {
    if (typeof a === "string") return (a === "") - (b === "") || (descending ? -1 : 1) * a.localeCompare(b);
    return Number.isNaN(a) - Number.isNaN(b) || (descending ? b - a : a - b) || 0;
  };
  const isOther = (row) => row.classList.contains("other");
  const keyed = [...body.rows].map((row) => [key(row), row]);
  keyed.sort(([a, first], [b, second]) => isOther(first) - isOther(second) || order(a, b));
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
      table.dispatchEvent(new Event("sorted"));
    });

// Calls draw once the window has kept its size for a moment.
function onResize(draw) {
  let timer;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(draw, 150);
  });
}
