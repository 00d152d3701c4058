// A stranger's styles, as the text of one style sheet. The frame's policy keeps them from loading
// anything, and what would is left out of them before.

export const OWN = "data-own-style";
const NAMED = /url\("(?:data:(?:image|font)\/|#)(?:[^"\\]|\\.)*"\)/gi; // as browsers write it
const LOADS = /(?:url|src|image|image-set|cross-fade|element|paint)\(|\\/i;
const LONG = 150; // characters of one selector
// Those that style what is there. What moves without end is not among them.
const RULES = [
  CSSStyleRule,
  CSSMediaRule,
  CSSSupportsRule,
  CSSFontFaceRule,
  globalThis.CSSContainerRule,
  globalThis.CSSLayerBlockRule,
  globalThis.CSSNestedDeclarations,
].filter(Boolean);

// Return what the styles of a document that is nowhere shown say; each attribute `style` becomes a
// rule, since the policy that holds in frames takes no such attribute.
export function stylesOf(parsed) {
  const texts = [...parsed.querySelectorAll("style")]
    .filter((one) => !one.media || matchMedia(one.media).matches)
    .map((one) => ruled(one.textContent));
  const known = new Map(); // by text, its number
  for (const node of parsed.querySelectorAll("[style]")) {
    const text = node.getAttribute("style");
    if (!known.has(text)) known.set(text, known.size);
    node.setAttribute(`${OWN}-${known.get(text)}`, "");
  }
  for (const [text, number] of known) texts.push(owned(text, number));
  // Nothing ends the element but its end tag, which strings may hold.
  return texts.join("\n").replaceAll("</", "<\\/");
}

function ruled(text) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  clean(sheet);
  return [...sheet.cssRules].map((rule) => rule.cssText).join("\n");
}

// Stronger than any selector is likely to be, as an attribute would be. Each has a name of its own,
// by which browsers find the few rules that may be an element's.
function owned(text, number) {
  const { style } = document.createElement("i");
  style.cssText = text;
  strip(style);
  return style.cssText && `[${OWN}-${number}]:not(#a#b#c#d){${style.cssText}}`;
}

function clean(owner) {
  for (let at = owner.cssRules.length - 1; at >= 0; at -= 1) {
    const rule = owner.cssRules[at];
    if (rule.style) strip(rule.style);
    if (!RULES.some((one) => rule instanceof one) || isSlow(rule)) owner.deleteRule(at);
    else if (rule.cssRules) clean(rule);
  }
}

// The longer one selector is, the longer a browser tries each element for it.
function isSlow({ selectorText = "" }) {
  return selectorText.split(",").some((one) => one.length > LONG);
}

function strip(style) {
  for (const name of [...style])
    if (LOADS.test(style.getPropertyValue(name).replaceAll(NAMED, ""))) style.removeProperty(name);
}
