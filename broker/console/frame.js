// Markup out of a kernel: it is a stranger's. It is shown in a frame whose sandbox lets no script
// run and gives it no origin; the policy of the page holds there, too, and the frame's own lets it
// load nothing but our style sheet. What could load, run or lead anywhere is taken out before.

import { el } from "./dom.js";
import { OWN, stylesOf } from "./styles.js";
import { isDark, onChange } from "./theme.js";

const MOST = 64 << 10; // characters
const MOST_NODES = 2000;
const DEEPEST = 200; // elements within each other
const PIECE = 512; // characters that are read at once
const TALLEST = 480; // pixels, until somebody pulls at the corner
const UNKNOWN = new Set([0, 150]); // pixels of a frame whose document nobody has measured
const LATE = 500; // ms until it is what it is
const MEASURES = CSS.supports("frame-sizing", "content-height");
const OUT =
  "script,style,link,meta,base,title,iframe,frame,frameset,object,embed,applet,portal,form," +
  "input:not([type=checkbox],[type=radio]),button,select,textarea,noscript,template,audio,video," +
  "source,track,svg,math,dialog";
const KEPT = new Set(
  (
    "align alt border cellpadding cellspacing checked class colspan datetime dir " +
    "disabled for headers height href id lang max open reversed rowspan scope span src start " +
    "title type valign value width"
  ).split(" "),
);
const COLOURS = /[\s;{](?:background(?:-color|-image)?|color):/;
const IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,[\w+/=\s]*$/i;

const policy = globalThis.trustedTypes?.createPolicy("frame", { createHTML: (text) => text });
const trusted = (text) => (policy ? policy.createHTML(text) : text);
// Only scripts of the page's can read it, and styles that have it are applied.
const { nonce } = document.querySelector("link[nonce]") ?? { nonce: "" };

// Return {element, cut, scripts}: how many characters were left out, and whether it had scripts.
export function framed(markup, label) {
  const { parsed, taken } = read(markup.slice(0, MOST));
  const cut = markup.length - taken;
  const scripts = parsed.querySelector("script") !== null;
  const styles = stylesOf(parsed);
  clean(parsed.body);
  const { body } = parsed;
  const empty = !body.textContent.trim() && !body.querySelector("img,hr,input");
  return { element: boxOf(styles, body, label), cut, scripts, empty };
}

// Read markup into a document that is nowhere shown and runs and loads nothing, piece by piece:
// elements that are left open are made again and again, so that little text may become millions.
function read(markup) {
  const parsed = document.implementation.createHTMLDocument("");
  const all = parsed.getElementsByTagName("*");
  let taken = 0;
  while (taken < markup.length && all.length <= MOST_NODES && depth(parsed) <= DEEPEST) {
    parsed.write(trusted(markup.slice(taken, taken + PIECE)));
    taken = Math.min(taken + PIECE, markup.length);
  }
  parsed.close();
  return { parsed, taken };
}

function depth(parsed) {
  let deep = 0;
  for (let node = parsed.documentElement; node; node = node.lastElementChild) deep += 1;
  return deep;
}

function boxOf(styles, body, label) {
  const frame = el("iframe", {
    sandbox: "",
    title: label,
    referrerpolicy: "no-referrer",
  });
  const box = el("div", { class: MEASURES ? "frame begun" : "frame" }, frame);
  box.style.blockSize = `${height(body)}px`;
  const markup = body.innerHTML;
  const draw = () => (frame.srcdoc = trusted(documentOf(styles, markup)));
  seen(box, () => {
    if (MEASURES) frame.addEventListener("load", () => fit(box, frame), { once: true });
    draw();
    if (!onWhite(styles)) shaded.set(frame, draw);
  });
  return box;
}

// By frame, what gives it its document again: no page reaches into one.
const shaded = new WeakMap();
onChange(() => {
  for (const frame of document.querySelectorAll(".frame iframe")) shaded.get(frame)?.();
});

const shade = () => (isDark() ? "dark" : "light");
// Whoever colours some of it had white paper in mind, unless the styles tell what they do in the
// dark.
const onWhite = (styles) => COLOURS.test(styles) && !styles.includes("prefers-color-scheme");

// Call `then` once an element is near to what is seen, and has been laid out: a frame that is given
// its document before it has a width measures it as if it had none.
function seen(element, then) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((one) => one.isIntersecting)) return;
      observer.disconnect();
      requestAnimationFrame(() => requestAnimationFrame(then));
    },
    { rootMargin: "300px" },
  );
  observer.observe(element);
}

function documentOf(styles, markup) {
  const sheet = `${location.origin}/console/frame.css`;
  const rules =
    `default-src 'none'; img-src data:; font-src data:; style-src ${sheet} 'nonce-${nonce}'; ` +
    "form-action 'none'; base-uri 'none'";
  return (
    `<!doctype html><html class="${onWhite(styles) ? "light own" : shade()}"><head>` +
    `<meta http-equiv="Content-Security-Policy" content="${rules}">` +
    `<meta name="responsive-embedded-sizing" content="allow-origins=${location.origin}">` +
    `<link rel="stylesheet" href="${sheet}"><style nonce="${nonce}">${styles}</style>` +
    `</head><body>${markup}</body></html>`
  );
}

function clean(body) {
  for (const node of body.querySelectorAll(OUT)) node.remove();
  let seen = 0;
  for (const node of body.querySelectorAll("*")) {
    seen += 1;
    if (seen > MOST_NODES) {
      node.remove();
      continue;
    }
    for (const { name, value } of [...node.attributes]) {
      const keep =
        (KEPT.has(name) || name.startsWith(OWN)) &&
        (name !== "src" || (node.localName === "img" && IMAGE.test(value))) &&
        (name !== "href" || (node.localName === "a" && value.startsWith("#")));
      if (!keep) node.removeAttribute(name);
      if (!keep && name === "href" && !node.title) node.title = value.slice(0, 300);
    }
  }
}

// Some browsers tell how tall a frame's document is, and no more of it; that is never less than the
// frame was when it began. For a moment the frame is as tall as that; from then on it fills its
// box, which people may make taller.
function fit(box, frame) {
  const observer = new ResizeObserver(() => UNKNOWN.has(frame.offsetHeight) || take());
  const late = setTimeout(() => take(), LATE);
  const take = () => {
    observer.disconnect();
    clearTimeout(late);
    const tall = Math.min(frame.offsetHeight, TALLEST);
    const edges = box.offsetHeight - box.clientHeight;
    box.classList.remove("measuring");
    if (tall) box.style.blockSize = `${tall + edges}px`;
  };
  box.classList.replace("begun", "measuring");
  observer.observe(frame);
}

// Where nothing can be measured in there from here: guess, and let people pull at the corner.
function height(body) {
  const rows = body.querySelectorAll("tr").length;
  const blocks = body.querySelectorAll(
    "p,li,h1,h2,h3,h4,h5,h6,pre,dt,dd,br,summary,hr,blockquote",
  ).length;
  const table = rows ? body.querySelector("table").textContent.length : 0;
  const text = body.textContent.length - table;
  let images = 0;
  for (const image of body.querySelectorAll("img"))
    images += Math.min(Number(image.getAttribute("height")) || 240, 600);
  const lines = Math.max(blocks, Math.ceil(Math.max(0, text) / 120));
  return Math.round(Math.min(TALLEST, Math.max(38, 18 + rows * 27 + lines * 24 + images)));
}
