"use strict";
// Headings sort by their columns, and any row can be the baseline. Without scripts the page is whole.
const table = document.getElementById("history");
const body = table.tBodies[0];
const rows = [...body.rows];
const headings = [...table.tHead.rows[0].cells];

function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value.replace("inf", "Infinity")) : cell.innerText.trim();
}

function sort(column) {
  const heading = headings[column];
  const up = heading.ariaSort !== "ascending";
  headings.forEach((one) => { one.removeAttribute("aria-sort"); });
  heading.ariaSort = up ? "ascending" : "descending";
  const known = rows.filter((row) => key(row, column) !== "" && key(row, column) !== table.dataset.none);
  const unknown = rows.filter((row) => !known.includes(row));
  known.sort((a, b) => {
    const [x, y] = [key(a, column), key(b, column)];
    const order = typeof x === "number" && typeof y === "number"
      ? (x < y ? -1 : x > y ? 1 : 0)
      : String(x).localeCompare(String(y), undefined, { numeric: true });
    return up ? order : -order;
  });
  body.append(...known, ...unknown);
}

headings.forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sort(column));
});

// Numbers as the page was written with: see numbers.py.
const power = (value, digits = 2) => Number(value.toExponential(digits - 1).split("e")[1]);
const timesTenTo = (exponent) => "×10" + [...String(exponent)].map((one) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(one)]).join("");
const scaleOf = (exponent) => (exponent >= -3 && exponent < 6 ? 0 : exponent);

function fixed(value, decimals) {
  const text = value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return text.replace("-", Number(text.replaceAll(",", "")) ? "−" : "");
}

function number(value, digits = 3) {
  if (value === 0) return "0";
  const exponent = power(value, digits);
  const scale = scaleOf(exponent);
  const text = fixed(value / 10 ** scale, scale ? digits - 1 : Math.max(0, digits - 1 - exponent));
  return scale ? text + timesTenTo(scale) : text;
}

function withError(mean, error) {
  if (!Number.isFinite(error)) return number(mean);
  if (error === 0) return Number.isInteger(mean) ? fixed(mean, 0) : number(mean, 4);
  const scale = scaleOf(power(Math.max(Math.abs(mean), error)));
  const [shownMean, shownError] = [mean / 10 ** scale, error / 10 ** scale];
  const decimals = Math.min(Math.max(0, 1 - power(shownError)), 15);
  const text = `${fixed(shownMean, decimals)} ±\u00a0${fixed(shownError, decimals)}`;
  return scale ? `(${text})${timesTenTo(scale)}` : text;
}

const drift = headings.findIndex((heading) => heading.dataset.column === "drift");

function choose(baseline) {
  for (const row of rows) {
    row.classList.toggle("baseline", row === baseline);
    const cell = row.cells[drift];
    delete cell.dataset.value;
    const said = document.createElement("bdi");
    cell.replaceChildren(said);
    if (row === baseline) {
      said.textContent = table.dataset.baseline;
      cell.dataset.value = "0";
    } else if (row.dataset.same !== baseline.dataset.same || !("mean" in row.dataset) || !("mean" in baseline.dataset)) {
      said.textContent = table.dataset.none;
      const why = document.createElement("small");
      why.textContent = table.dataset.other;
      cell.append(why);
    } else {
      const change = Number(row.dataset.mean) - Number(baseline.dataset.mean);
      const error = Math.hypot(Number(row.dataset.error), Number(baseline.dataset.error));
      said.textContent = (change > 0 ? "+" : "") + withError(change, error);
      cell.dataset.value = String(change);
    }
  }
}

const menu = document.querySelector("#choose select");
const file = headings.findIndex((heading) => heading.dataset.column === "file");
rows.forEach((row, place) => {
  const called = `${row.cells[file].innerText.trim()}: ${row.cells[0].innerText.trim()}`;
  menu.append(new Option(called, String(place), false, row.classList.contains("baseline")));
});
menu.addEventListener("change", () => choose(rows[Number(menu.value)]));
document.getElementById("choose").hidden = false;
