// The table of runs: a click on a heading sorts, a text and choices filter. Without this script the
// table is simply there.
"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const DASH = "–";

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // What a cell sorts by: a number, a text, or null for a dash.
  const keyOf = (cell) => {
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.firstChild ? cell.firstChild.textContent.trim() : "";
    return text === "" || text === DASH ? null : text;
  };

  // Numbers before texts; what is missing comes last in both directions.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return sign * (typeof a === "number" ? -1 : 1);
    if (typeof a === "number") return a === b ? 0 : sign * (a < b ? -1 : 1);
    return sign * collator.compare(a, b);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const rising = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
        keyed.sort(([a], [b]) => compare(a, b, rising ? 1 : -1));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  };

  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) return;
    const texts = rows.map((row) =>
      [...row.cells].map((cell) => cell.textContent).join("\n").toLowerCase(),
    );
    const text = make("input", { type: "search", placeholder: "part of any cell" });
    const shown = make("output");
    const choices = [...table.tHead.rows[0].cells]
      .filter((heading) => heading.dataset.choose !== undefined)
      .map((heading) => choice(heading, rows));

    const apply = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, i) => {
        const kept =
          words.every((word) => texts[i].includes(word)) &&
          choices.every(({ column, select }) =>
            select.value === "" || row.cells[column].firstChild.textContent === select.value,
          );
        row.hidden = !kept;
        count += kept;
      });
      shown.textContent =
        count === rows.length ? `${count} runs` : `${count} of ${rows.length} runs`;
    };

    const bar = make("div", { className: "filter" }, make("label", {}, "Filter ", text));
    choices.forEach(({ name, select }) => bar.append(make("label", {}, `${name} `, select)));
    bar.append(shown);
    bar.addEventListener("input", apply);
    table.parentElement.before(bar);
    apply();
  };

  // One of the values of a column, or all.
  const choice = (heading, rows) => {
    const column = heading.cellIndex;
    const keys = new Map();
    rows.forEach((row) => {
      const cell = row.cells[column];
      keys.set(cell.firstChild.textContent, keyOf(cell));
    });
    const values = [...keys].sort(([, a], [, b]) => compare(a, b, 1)).map(([value]) => value);
    const select = make("select", {}, make("option", { value: "" }, "all"));
    values.forEach((value) => select.append(make("option", { value }, value)));
    return { column, name: heading.textContent, select };
  };

  document.querySelectorAll("table.runs").forEach((table) => {
    filterable(table);
    sortable(table);
  });
})();
