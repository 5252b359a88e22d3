"use strict";
// Tables: a click on a heading sorts by it, and words in the filter keep the rows that have all of them.
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, index) => {
    const cell = row.cells[index];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) {
      return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    }
    return typeof a === "number" ? 1 : -1;
  };
  headings.forEach((heading, index) => {
    heading.querySelector("button").addEventListener("click", () => {
      const isNumeric = heading.classList.contains("n");
      const was = heading.getAttribute("aria-sort");
      // Numbers begin with the largest, text with A.
      const order = was === null ? (isNumeric ? "descending" : "ascending") : was === "ascending" ? "descending" : "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((a, b) => sign * compare(key(a, index), key(b, index)));
      body.append(...rows);
    });
  });
  const filter = table.closest(".table").querySelector("input");
  if (filter) {
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
}
