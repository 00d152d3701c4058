// What a page shows that people could not read, and what can be used and tells nobody what it is.

const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

function over(below, colour, opacity = 1) {
  pen.globalAlpha = 1;
  pen.fillStyle = `rgb(${below})`;
  pen.fillRect(0, 0, 1, 1);
  pen.globalAlpha = opacity;
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function behind(node) {
  const chain = [];
  for (let one = node; one; one = one.parentElement) chain.unshift(one);
  const papers = chain.map((one) => getComputedStyle(one).backgroundColor);
  return papers.reduce((rgb, paper) => over(rgb, paper), [255, 255, 255]);
}

// WCAG 2.2, "relative luminance".
function luminance(rgb) {
  const [r, g, b] = rgb
    .map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// Texts with less than 4.5 to 1 between them and what is behind them.
function faint() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility({ opacityProperty: true })) continue;
    if (node.closest(":disabled, .skip, [aria-hidden=true], textarea, select")) continue;
    const { color, opacity } = getComputedStyle(node);
    const paper = behind(node);
    const pair = [luminance(over(paper, color, Number(opacity))), luminance(paper)];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const where = node.className || node.localName;
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${where}: ${text.data.slice(0, 40)}`);
  }
  return found;
}

const USED = "button, a[href], input, select, textarea, iframe, [role=grid], [role=region], dialog";
const NAMING = ["aria-labelledby", "aria-controls", "aria-describedby", "for"];

function hasName(one) {
  return (
    one.getAttribute("aria-label") ||
    one.getAttribute("aria-labelledby") ||
    one.getAttribute("title") ||
    one.labels?.[0]?.textContent ||
    one.textContent.trim()
  );
}

// What has no name, names that stand twice, and names of nothing.
function nameless() {
  const used = [...document.querySelectorAll(USED)];
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  const named = [...document.querySelectorAll(NAMING.map((one) => `[${one}]`).join())];
  const names = named.flatMap((one) => NAMING.map((name) => one.getAttribute(name)));
  return [
    ...used.filter((one) => one.checkVisibility() && !hasName(one)).map((one) => one.outerHTML),
    ...ids.filter((one, at) => ids.indexOf(one) !== at),
    ...names.filter((id) => id && !document.getElementById(id)),
  ];
}
