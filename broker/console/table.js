// A kernel's table as data, drawn as a table of text.

import { el } from "./dom.js";
import { clip, count } from "./format.js";

const ROWS = 100;
const COLUMNS = 50;
const WIDE = 200; // characters of a value

export function isTable(form) {
  return (
    Array.isArray(form?.columns) && Array.isArray(form?.rows) && form.rows.every(Array.isArray)
  );
}

export function table(form) {
  const columns = form.columns.slice(0, COLUMNS);
  const rows = form.rows.slice(0, ROWS);
  const index = Array.isArray(form.index?.values) ? form.index : null;
  const numeric = columns.map((one) => /^(u?int|float|decimal|bool)/i.test(String(one?.dtype)));
  const head = el(
    "tr",
    {},
    index && el("th", { scope: "col", class: "index" }, shown(index.name, "")),
    ...columns.map((one, at) =>
      el(
        "th",
        { scope: "col", class: numeric[at] ? "number" : "", title: String(one?.dtype ?? "") },
        shown(one?.name),
      ),
    ),
  );
  const body = rows.map((row, at) =>
    el(
      "tr",
      {},
      index && el("th", { scope: "row", class: "index" }, shown(index.values[at])),
      ...columns.map((_, column) => {
        const value = row[column];
        const missing = value === null || value === undefined;
        return el(
          "td",
          { class: `${numeric[column] ? "number" : ""}${missing ? " missing" : ""}` },
          shown(value),
        );
      }),
    ),
  );
  const shape = Array.isArray(form.shape) ? form.shape : [];
  const [all, wide] = [Number(shape[0]) || rows.length, Number(shape[1]) || columns.length];
  const words = `${count(all)} × ${count(wide)}`;
  const cut = all > rows.length || wide > columns.length;
  const say = cut
    ? `${words}, of which ${count(rows.length)} × ${count(columns.length)} are shown`
    : words;
  return el(
    "div",
    { class: "table" },
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table, ${words}` },
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)),
    ),
    el("p", { class: "cut" }, say),
  );
}

function shown(value, none = "null") {
  if (value === null || value === undefined) return none;
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return clip(text, WIDE);
}
