// The little of Markdown that is worth showing; all else stays text, links too: they lead nowhere.

import { el, straight } from "./dom.js";
import { clip } from "./format.js";

const MOST = 64 << 10; // characters
const MARKS = 300; // within one paragraph
const BLOCKS = 500;
const CELLS = 2000; // of one table
const WIDE = 4000; // characters of one paragraph
// Each repetition ends soon: a stranger chooses the text.
const INLINE = new RegExp(
  [
    /`([^`\n]+)`/,
    /\*\*([^*\n]+)\*\*/,
    /\*([^*\s][^*\n]*)\*/,
    /!?\[([^[\]\n]{0,300})\]\(([^)\s]{0,2000})[^)\n]{0,300}\)/,
  ]
    .map((one) => one.source)
    .join("|"),
  "g",
);
const FENCE = /^ {0,3}```/;
const HEADING = /^(#{1,6})\s+(.*)/;
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})\s*$/;
const ITEM = /^(\s{0,12})(?:[-*+]|(\d{1,9})[.)])\s+(.*)/;
const QUOTE = /^ {0,3}> ?/;
const DASHES = /^\s*\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?\s*)?$/;

export function rendered(text) {
  const all = straight(text.slice(0, MOST)).replaceAll("\r\n", "\n").split("\n");
  const box = el("div", { class: "markdown" });
  const lines = { all, at: 0 };
  for (let made = 0; lines.at < all.length && made < BLOCKS;) {
    if (all[lines.at].trim()) {
      box.append(block(lines));
      made += 1;
    } else lines.at += 1;
  }
  if (text.length > MOST || lines.at < all.length)
    box.append(el("p", { class: "cut" }, "The rest is not shown."));
  return box;
}

// Take lines as long as they satisfy `are`.
function taken(lines, are) {
  const from = lines.at;
  while (lines.at < lines.all.length && are(lines.all[lines.at])) lines.at += 1;
  return lines.all.slice(from, lines.at);
}

function block(lines) {
  const line = lines.all[lines.at];
  if (FENCE.test(line)) return fenced(lines);
  if (isTable(lines)) return table(lines);
  if (RULE.test(line)) {
    lines.at += 1;
    return el("hr");
  }
  const heading = line.match(HEADING);
  if (heading) {
    lines.at += 1;
    return el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2]));
  }
  if (QUOTE.test(line)) {
    const quoted = taken(lines, (one) => QUOTE.test(one)).map((one) => one.replace(QUOTE, ""));
    return el("blockquote", {}, ...inline(quoted.join(" ")));
  }
  if (ITEM.test(line)) return list(lines);
  lines.at += 1;
  const text = [line, ...taken(lines, isText)];
  return el("p", {}, ...inline(text.map((one) => one.trim()).join(" ")));
}

function isText(line) {
  return line.trim() !== "" && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((one) => one.test(line));
}

function fenced(lines) {
  lines.at += 1;
  const code = taken(lines, (one) => !FENCE.test(one));
  lines.at += 1;
  return el("pre", {}, el("code", {}, code.join("\n")));
}

// A list within a list is its parent's, further to the right.
function list(lines) {
  const rows = taken(lines, (one) => ITEM.test(one)).map((one) => one.match(ITEM));
  const [, , number] = rows[0];
  const items = rows.map(([, space, , text]) => {
    const depth = Math.min(3, Math.floor((space.length - rows[0][1].length) / 2));
    return el("li", { class: depth > 0 && `deep-${depth}` }, ...inline(text));
  });
  return number === undefined ? el("ul", {}, ...items) : el("ol", { start: number }, ...items);
}

function isTable({ all, at }) {
  return all[at].includes("|") && DASHES.test((all[at + 1] ?? "").slice(0, WIDE));
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|", 100);
}

function table(lines) {
  const [head, dashes, ...body] = taken(lines, (one) => one.includes("|"));
  const ends = cells(dashes).map((one) => (one.trim().endsWith(":") ? "number" : ""));
  let left = CELLS;
  const row = (line, tag) => {
    const texts = cells(line);
    left -= texts.length;
    const made = texts.map((one, at) => el(tag, { class: ends[at] }, ...inline(one.trim())));
    return el("tr", {}, ...made);
  };
  const titles = row(head, "th");
  const rows = [];
  for (const line of body) if (left > 0) rows.push(row(line, "td"));
  const made = el("table", {}, el("thead", {}, titles), el("tbody", {}, ...rows));
  return el("div", { class: "table" }, el("div", { class: "scroll", tabindex: "0" }, made));
}

function inline(text) {
  const nodes = [];
  let at = 0;
  text = clip(text, WIDE);
  for (const found of text.matchAll(INLINE)) {
    if (nodes.length > 2 * MARKS) break;
    nodes.push(text.slice(at, found.index));
    const [whole, code, bold, italic, label, target] = found;
    if (code) nodes.push(el("code", {}, code));
    else if (bold) nodes.push(el("strong", {}, bold));
    else if (italic) nodes.push(el("em", {}, italic));
    else nodes.push(el("span", { class: "inert", title: target }, label || target));
    at = found.index + whole.length;
  }
  nodes.push(text.slice(at));
  return nodes;
}
