// What a terminal would show of text: lines, with colours as classes; everything else that a
// terminal acts on is left out.

import { el, straight } from "./dom.js";
import { plural } from "./format.js";

// CSI, of which colours are taken apart; OSC, DCS, PM, APC and SOS up to their end; two-character
// escapes.
const ESCAPES = new RegExp(
  [
    /(\x1b\[[\d;:]*m)/,
    /\x1b\[[0-?]*[ -/]*[@-~]/,
    /\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)/,
    /\x1b[ -/]*[0-~]/,
  ]
    .map((one) => one.source)
    .join("|"),
  "g",
);
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?$/;
const CONTROLS = /[\x00-\x07\x0b-\x1a\x1c-\x1f\x7f-\x9f]/g; // but \b, \t, \n and ESC
const SGR = /\x1b\[([\d;:]*)m/g;
const MOST_PENDING = 4096;

// Lines of a stream as it comes in pieces. Colours stay in the lines, as escapes.
export class Lines {
  constructor() {
    this.done = []; // lines that are whole
    this.last = ""; // the one that is being written
    this.pending = ""; // the beginning of an escape, or a \r
    this.style = ""; // of the text that comes next, as an escape
  }

  write(text) {
    text = this.pending + text;
    this.pending = "";
    const cut = text.search(UNFINISHED);
    if (cut >= 0 && text.length - cut <= MOST_PENDING) {
      this.pending = text.slice(cut);
      text = text.slice(0, cut);
    }
    if (text.endsWith("\r")) {
      this.pending = `\r${this.pending}`;
      text = text.slice(0, -1);
    }
    if (text.includes("\x1b")) text = text.replace(ESCAPES, "$1");
    const parts = text.replaceAll("\r\n", "\n").split("\n");
    parts.forEach((part, index) => {
      if (index) {
        this.done.push(this.last);
        this.last = this.style;
      }
      this.last = this.typed(this.last, part);
    });
  }

  typed(line, part) {
    if (part.includes("\x1b")) {
      for (const [whole, codes] of part.matchAll(SGR))
        this.style = /^(0*|.*;0*)$/.test(codes) ? "" : this.style + whole;
      if (this.style.length > 64) this.style = this.style.slice(-64).replace(/^[^\x1b]*/, "");
    }
    const back = part.lastIndexOf("\r");
    if (back >= 0) {
      line = this.style;
      part = part.slice(back + 1);
    }
    part = part.replace(CONTROLS, "");
    if (!part.includes("\b")) return line + part.replace(/\x1b(?!\[)/g, "");
    return backspaced(line + part);
  }
}

// Text with each \b gone, and the character before it.
function backspaced(text) {
  const [first, ...rest] = text.split("\b");
  const kept = [first]; // none of them empty but the first
  for (const piece of rest) {
    const last = kept.pop();
    const pair = last.length > 1 && last.codePointAt(last.length - 2) > 0xffff;
    const left = last.slice(0, pair ? -2 : -1);
    if (left || !kept.length) kept.push(left);
    if (piece) kept.push(piece);
  }
  return kept.join("");
}

export function plain(line) {
  return line.includes("\x1b") ? line.replace(ESCAPES, "").replaceAll("\x1b", "") : line;
}

export function unescaped(text) {
  const lines = new Lines();
  lines.write(text);
  return [...lines.done, lines.last].map(plain).join("\n");
}

// Return nodes for some lines, those without colours in one.
export function drawn(lines, most) {
  const nodes = [];
  let run = "";
  for (const line of lines) {
    const short =
      line.length > most
        ? `${line.slice(0, most)} … ${plural(line.length - most, "more character")}`
        : line;
    if (!short.includes("\x1b")) {
      run += `${straight(short)}\n`;
      continue;
    }
    if (run) nodes.push(run);
    run = "\n";
    nodes.push(...coloured(short));
  }
  if (run) nodes.push(run);
  return nodes;
}

function coloured(line) {
  const nodes = [];
  let at = 0;
  let state = {};
  for (const found of line.matchAll(SGR)) {
    if (found.index > at) nodes.push(styled(line.slice(at, found.index), state));
    state = changed(state, found[1]);
    at = found.index + found[0].length;
  }
  if (at < line.length) nodes.push(styled(line.slice(at), state));
  return nodes;
}

function styled(text, state) {
  text = text.replaceAll("\x1b", "");
  const names = ["bold", "dim", "italic", "underline"].filter((name) => state[name]);
  const swapped = state.inverse
    ? { fore: state.back ?? "inverse", back: state.fore ?? "inverse" }
    : state;
  for (const [side, value] of [
    ["f", swapped.fore],
    ["b", swapped.back],
  ])
    if (typeof value === "number" || value === "inverse") names.push(`${side}-${value}`);
  const node = el("span", { class: names.map((name) => `t-${name}`).join(" ") }, text);
  // Set as properties, which takes colours and nothing else.
  if (Array.isArray(swapped.fore)) node.style.color = `rgb(${swapped.fore})`;
  if (Array.isArray(swapped.back)) node.style.backgroundColor = `rgb(${swapped.back})`;
  return node;
}

function changed(state, text) {
  const codes = text.split(/[;:]/).map((one) => Math.min(Number(one) || 0, 255));
  let next = { ...state };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) next = {};
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 39) delete next.fore;
    else if (code === 49) delete next.back;
    else if (code >= 30 && code <= 37) next.fore = code - 30;
    else if (code >= 90 && code <= 97) next.fore = code - 82;
    else if (code >= 40 && code <= 47) next.back = code - 40;
    else if (code >= 100 && code <= 107) next.back = code - 92;
    else if (code === 38 || code === 48) {
      const side = code === 38 ? "fore" : "back";
      if (codes[index + 1] === 5) next[side] = indexed(codes[index + 2] ?? 0);
      else if (codes[index + 1] === 2)
        next[side] = [0, 1, 2].map((step) => codes[index + 2 + step] ?? 0);
      index += codes[index + 1] === 5 ? 2 : 4;
    }
  }
  return next;
}

function indexed(number) {
  if (number < 16) return number;
  if (number >= 232) return Array(3).fill(8 + (number - 232) * 10);
  const cube = number - 16;
  return [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((one) =>
    one ? 55 + one * 40 : 0,
  );
}
