// The little of Markdown that is worth showing; all else stays text, links too: they lead nowhere.

import { el, straight } from "./dom.js";
import { clip } from "./format.js";

const MOST = 64 << 10; // characters
const MARKS = 300; // within one paragraph
const BLOCKS = 500;
const WIDE = 4000; // characters of one
// Each repetition ends soon: a stranger chooses the text.
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|!?\[([^\]\n]{0,300})\]\(([^)\s]{0,2000})[^)\n]{0,300}\)/g;

export function rendered(text) {
  text = straight(text.slice(0, MOST + 1));
  const box = el("div", { class: "markdown" });
  const blocks = text.slice(0, MOST).replaceAll("\r\n", "\n").split(/\n(?:[ \t]*\n)+|(?=\n```)|(?<=\n```)\n/);
  let fence = null;
  const all = blocks.flatMap((one) => one.split(/^(?=```)/m));
  for (const block of all.slice(0, BLOCKS)) {
    if (fence !== null) {
      const end = block.search(/^```\s*$/m);
      fence.append(`${fence.textContent ? "\n\n" : ""}${(end < 0 ? block : block.slice(0, end)).replace(/^\n/, "")}`);
      if (end < 0) continue;
      fence = null;
      const rest = block.slice(end).replace(/^```[^\n]*\n?/, "");
      if (rest.trim()) box.append(...one(rest));
    } else if (block.trimStart().startsWith("```")) {
      fence = el("code");
      box.append(el("pre", {}, fence));
      fence.append(block.trimStart().replace(/^```[^\n]*\n?/, ""));
    } else if (block.trim()) box.append(...one(block));
  }
  if (text.length > MOST || all.length > BLOCKS) box.append(el("p", { class: "cut" }, "The rest is not shown."));
  return box;
}

function one(block) {
  const lines = block.split("\n").filter((line) => line.trim());
  const made = [];
  let list = null;
  let lines_ = [];
  const flush = () => {
    if (lines_.length) made.push(el("p", {}, ...inline(lines_.join(" "))));
    lines_ = [];
  };
  for (const line of lines) {
    const heading = line.match(/^(#{1,6})\s+(.*)/);
    const item = line.match(/^\s*(?:([-*+])|\d+[.)])\s+(.*)/);
    if (heading || item) flush();
    if (!item) list = null;
    if (heading) made.push(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])));
    else if (item) {
      if (!list) made.push((list = el(item[1] ? "ul" : "ol")));
      list.append(el("li", {}, ...inline(item[2])));
    } else lines_.push(line.trim());
  }
  flush();
  return made;
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
