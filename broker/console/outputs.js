// What a cell shows, form by form. All of it is a stranger's: text becomes text, images come from
// a fixed set of types, and markup goes into a frame that can do nothing.

import { save } from "./api.js";
import { button, el } from "./dom.js";
import { bytes, clip } from "./format.js";
import { framed } from "./frame.js";
import { rendered } from "./markdown.js";
import { isTable, table } from "./table.js";
import { drawn, unescaped } from "./terminal.js";

const PLAIN = 64 << 10; // characters of a text that is shown at once
const ITEMS = 2000; // of a JSON value
const DEPTH = 40;
const FRAMES = 50; // in the page
const frames = document.getElementsByTagName("iframe");
const WIDE = 2000; // characters of a line
const IMAGE = 16 << 20; // characters of base64
const TABLE = "application/vnd.broker.dataframe+json";
const CHART = "application/vnd.broker.chart+json";
const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
// Best first; what is not here is named, and not shown.
const FORMS = {
  [TABLE]: { name: "table", draw: (value) => (isTable(value) ? table(value) : null) },
  ...Object.fromEntries(
    IMAGES.map((type) => [type, { name: "image", draw: (value) => image(type, value) }]),
  ),
  "image/svg+xml": { name: "drawing", draw: drawing },
  "text/html": { name: "markup", draw: markup },
  "text/markdown": { name: "Markdown", draw: (value) => rendered(textOf(value)) },
  "text/latex": { name: "LaTeX", draw: (value) => cutText(textOf(value)) },
  "application/json": { name: "JSON", draw: json },
  "text/plain": { name: "text", draw: (value) => cutText(textOf(value)) },
};
const SCRIPTED = /plotly|vega|bokeh|widget|javascript/;

export function rich(data) {
  const types = Object.keys(data);
  const known = Object.keys(FORMS).filter((type) => type in data);
  const scripted = types.find((type) => SCRIPTED.test(type));
  const box = el("div", { class: "rich" });
  const made = first(data, scripted ? known.filter((type) => type !== "text/html") : known, box);
  if (scripted && !(made && FORMS[made].name === "image"))
    box.append(
      cut("Scripts of kernels never run here: take the notebook home to see this one at work."),
    );
  else if (!made && types.length) box.append(cut(`Not shown: ${clip(types.join(", "), 200)}.`));
  if (made) box.append(...switches(data, known, made, box));
  return box;
}

function first(data, types, box) {
  for (const type of types) {
    const drawn = attempt(type, data[type]);
    if (drawn) {
      box.prepend(drawn);
      return type;
    }
  }
  return null;
}

function attempt(type, value) {
  try {
    return FORMS[type].draw(value);
  } catch {
    return null; // not what its type says
  }
}

// The same output in its other forms, for who wants to see what a model was given.
function switches(data, known, shown, box) {
  if (known.length < 2) return [];
  const row = el("div", { class: "forms", role: "group", "aria-label": "Forms of this output" });
  for (const type of known) {
    const one = button(
      FORMS[type].name,
      () => {
        box.firstChild.replaceWith(
          attempt(type, data[type]) ?? cut("It is not what its type says."),
        );
        for (const other of row.children) other.setAttribute("aria-pressed", String(other === one));
      },
      { class: "link", "aria-pressed": String(type === shown) },
    );
    row.append(one);
  }
  return [row];
}

function textOf(value) {
  if (Array.isArray(value)) return value.join("");
  return typeof value === "string" ? value : (JSON.stringify(value, null, 1) ?? "");
}

function base64Of(value) {
  const text = (
    typeof value === "object" && value !== null ? (value.base64 ?? "") : textOf(value)
  ).replaceAll(/\s+/g, "");
  return text && /^[A-Za-z0-9+/]*={0,2}$/.test(text) ? text : null;
}

function cut(text, ...more) {
  return el("p", { class: "cut" }, text, ...more);
}

function cutText(text) {
  const lines = unescaped(text.slice(0, PLAIN)).split("\n");
  const box = el("div", { class: "plain" }, el("pre", {}, ...drawn(lines, WIDE)));
  if (text.length > PLAIN)
    box.append(
      cut(
        `${bytes(PLAIN)} of ${bytes(text.length)} are shown. `,
        button("Download", () => save(text, "output.txt"), { class: "link" }),
      ),
    );
  return box;
}

// The beginning of it, so that megabytes need not become text first.
function json(value) {
  const room = { left: ITEMS };
  const box = cutText(JSON.stringify(beginning(value, room, 0), null, 2) ?? "");
  if (room.left < 0)
    box.append(
      cut(
        "The rest is not shown. ",
        button("Download", () => save(JSON.stringify(value), "output.json"), { class: "link" }),
      ),
    );
  return box;
}

function beginning(value, room, depth) {
  if (typeof value === "string") return clip(value, PLAIN);
  if (typeof value !== "object" || value === null) return value;
  if (depth > DEPTH) return "…";
  const taken = [];
  for (const [name, item] of Array.isArray(value)
    ? value.slice(0, ITEMS + 1).entries()
    : Object.entries(value)) {
    room.left -= 1;
    if (room.left < 0) break;
    taken.push([name, beginning(item, room, depth + 1)]);
  }
  return Array.isArray(value) ? taken.map(([, item]) => item) : Object.fromEntries(taken);
}

function image(type, value) {
  const packed = base64Of(value);
  if (!packed) return null;
  if (packed.length > IMAGE)
    return cut(`An image of ${bytes((packed.length * 3) / 4)} is not shown.`);
  return picture(`data:${type};base64,${packed}`, type);
}

// As an image, where no script of it runs and nothing of it is loaded. Its address has no origin,
// so that it does not become ours in a tab of its own.
function drawing(value) {
  const text = textOf(value);
  if (text.length > IMAGE / 4) return cut(`A drawing of ${bytes(text.length)} is not shown.`);
  return picture(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`, "image/svg+xml");
}

function picture(address, type) {
  const made = el("img", { src: address, alt: `Output, ${type}`, decoding: "async" });
  const box = el("div", { class: "picture" }, made);
  made.addEventListener("error", () =>
    box.replaceChildren(cut(`An image (${type}) that cannot be read.`)),
  );
  return box;
}

function markup(value) {
  const text = textOf(value);
  // Each frame is a document of its own.
  if (frames.length < FRAMES) return drawnMarkup(text);
  const box = cut(
    `${bytes(text.length)} of markup. `,
    button("Show", () => box.replaceWith(drawnMarkup(text)), { class: "link" }),
  );
  return box;
}

function drawnMarkup(text) {
  const { element, cut: left, scripts, empty } = framed(text, "Output of the session, shut in");
  const box = el("div", { class: "markup" });
  if (!empty) box.append(element);
  if (scripts) box.append(cut("Scripts of kernels never run here; this output had some."));
  if (left)
    box.append(
      cut(
        `${bytes(text.length - left)} of ${bytes(text.length)} of markup are shown. `,
        button("Download", () => save(text, "output.html"), { class: "link" }),
      ),
    );
  if (empty && !scripts) box.append(cut("An output without anything to see."));
  return box;
}
