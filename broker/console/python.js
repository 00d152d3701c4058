// Python's tokens, well enough for colours.

import { el, straight } from "./dom.js";

const MOST = 60000; // characters; more is shown without colours
const WORDS = new Set(
  (
    "False None True and as assert async await break class continue def del elif else " +
    "except finally for from global if import in is lambda match case nonlocal not or pass " +
    "raise return try while with yield"
  ).split(" "),
);
const BUILT_IN = new Set(
  (
    "abs all any bool bytes callable dict dir divmod enumerate filter float format " +
    "frozenset getattr hasattr hash help id input int isinstance issubclass iter len list " +
    "map max min next object open ord pow print property range repr reversed round self " +
    "set setattr slice sorted staticmethod str sum super tuple type vars zip display " +
    "Exception ValueError KeyError TypeError RuntimeError"
  ).split(" "),
);
const QUOTED = [
  /'''[^]*?(?:'''|$)/,
  /"""[^]*?(?:"""|$)/,
  /'(?:\\[^]|[^'\\\n])*'?/,
  /"(?:\\[^]|[^"\\\n])*"?/,
]
  .map((one) => one.source)
  .join("|");
const TOKEN = new RegExp(
  [
    /(?<comment>#[^\n]*)/,
    new RegExp(`(?<string>(?:\\b[rRbBuUfFtT]{1,2})?(?:${QUOTED}))`),
    /(?<number>\b(?:0[xXoObB][\da-fA-F_]+|\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?\d+)?j?)\b)/,
    /(?<magic>(?<=^|\n)[%!]{1,2}[^\n]*|(?<=^|\n)[ \t]*@[\w.]+)/,
    /(?<word>[^\W\d]\w*)/,
    /(?<rest>[^\w#'"@%!]+|.)/,
  ]
    .map((one) => one.source)
    .join("|"),
  "gu",
);

export function highlighted(code) {
  code = straight(code);
  const box = document.createDocumentFragment();
  if (code.length > MOST) {
    box.append(code);
    return box;
  }
  let run = "";
  let before = "";
  for (const { 0: text, groups } of code.matchAll(TOKEN)) {
    let kind = groups.comment
      ? "comment"
      : groups.string
        ? "string"
        : groups.number
          ? "number"
          : groups.magic
            ? "magic"
            : "";
    if (groups.word) {
      if (WORDS.has(text)) kind = "keyword";
      else if (before === "def" || before === "class") kind = "name";
      else if (BUILT_IN.has(text)) kind = "built-in";
      before = text;
    } else if (text.trim()) before = "";
    if (!kind) {
      run += text;
      continue;
    }
    if (run) box.append(run);
    run = "";
    box.append(el("span", { class: `p-${kind}` }, text));
  }
  box.append(run);
  return box;
}
