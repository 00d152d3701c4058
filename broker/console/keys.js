// The keyboard: each page names its keys, and `?` shows them.

import { told } from "./ask.js";
import { el } from "./dom.js";

let page = [];
const COMMON = [
  { key: "?", does: "show these keys", act: help },
  {
    key: "t",
    does: "light or dark",
    act: () => document.querySelector("[data-theme-toggle]")?.click(),
  },
];

// `rows` are {key, does, act}; those without `act` are only shown.
export function use(rows) {
  page = rows;
}

export function begin() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    const where = event.target;
    if (where.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") where.blur();
      return;
    }
    // What has the focus answers to its own keys.
    if (["Enter", " "].includes(event.key) && where.closest("button, a, summary")) return;
    const row = [...page, ...COMMON].find((one) => one.act && one.key === event.key);
    if (row) {
      event.preventDefault();
      row.act(event);
    }
  });
}

export function help() {
  const rows = [...page, ...COMMON].filter((row) => row.does);
  told(
    "Keys",
    el(
      "dl",
      { class: "keys" },
      ...rows.flatMap((row) => [
        el("dt", {}, el("kbd", {}, row.shown || row.key)),
        el("dd", {}, row.does),
      ]),
    ),
  );
}
