// Sorts the table by a click, or Enter, on the head of a column; a run's colour follows its place in the table.
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
const curvesOf = (row) => document.querySelectorAll(`polyline[data-run="${row.dataset.run}"]`);

for (const head of heads) {
  head.querySelector("button")?.addEventListener("click", () => sortBy(head));
}
for (const row of body.rows) {
  for (const [event, chosen] of [["mouseenter", true], ["mouseleave", false]]) {
    row.addEventListener(event, () => curvesOf(row).forEach((curve) => choose(curve, chosen)));
  }
}

function sortBy(head) {
  const column = heads.indexOf(head);
  const order = head.ariaSort === "ascending" ? "descending" : "ascending";
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => compare(value(a), value(b), order === "ascending" ? 1 : -1));
  body.append(...rows);
  heads.forEach((other) => { other.ariaSort = other === head ? order : "none"; });
  rows.forEach((row, place) => {
    const rank = place / Math.max(1, rows.length - 1);
    [row, ...curvesOf(row)].forEach((part) => part.style.setProperty("--rank", rank));
  });
}

// Numbers before words, and what is missing last, whichever way the rest is sorted.
function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
  return sign * a.localeCompare(b);
}

function choose(curve, chosen) {
  curve.classList.toggle("chosen", chosen);
  if (chosen) curve.parentNode.append(curve);  // above the others
}
