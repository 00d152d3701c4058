// Markup out of a kernel: it is a stranger's. It is shown in a frame whose sandbox lets no script
// run and gives it no origin; the policy of the page holds there, too, and the frame's own lets it
// load nothing but our style sheet. What could load, run or lead anywhere is taken out before.

import { el } from "./dom.js";
import { isDark } from "./theme.js";

const MOST = 64 << 10; // characters
const MOST_NODES = 2000;
const OUT = "script,style,link,meta,base,title,iframe,frame,frameset,object,embed,applet,portal,form,input,button,select,textarea,noscript,template,audio,video,source,track,svg,math,dialog";
const KEPT = new Set(
  ("align alt border cellpadding cellspacing class colspan datetime dir headers height href id lang open reversed rowspan " +
    "scope span src start title type valign value width").split(" "),
);
const IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,[\w+/=\s]*$/i;

const policy = globalThis.trustedTypes?.createPolicy("frame", { createHTML: (text) => text });
const trusted = (text) => (policy ? policy.createHTML(text) : text);

// Return {element, cut, scripts}: how many characters were left out, and whether it had scripts.
export function framed(markup, label) {
  const cut = Math.max(0, markup.length - MOST);
  const parsed = new DOMParser().parseFromString(trusted(markup.slice(0, MOST)), "text/html");
  const scripts = parsed.querySelector("script") !== null;
  clean(parsed.body);
  const frame = el("iframe", {
    sandbox: "",
    title: label,
    referrerpolicy: "no-referrer",
    tabindex: "-1",
    loading: "lazy",
  });
  const sheet = `${location.origin}/console/frame.css`;
  frame.srcdoc = trusted(
    `<!doctype html><html class="${isDark() ? "dark" : "light"}"><head>` +
      `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src ${sheet}">` +
      `<link rel="stylesheet" href="${sheet}"></head><body>${parsed.body.innerHTML}</body></html>`,
  );
  const box = el("div", { class: "frame" }, frame);
  box.style.blockSize = `${height(parsed.body)}px`;
  return { element: box, cut, scripts, empty: !parsed.body.textContent.trim() && !parsed.body.querySelector("img,hr") };
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
        KEPT.has(name) &&
        (name !== "src" || (node.localName === "img" && IMAGE.test(value))) &&
        (name !== "href" || (node.localName === "a" && value.startsWith("#")));
      if (!keep) node.removeAttribute(name);
      if (!keep && name === "href" && !node.title) node.title = value.slice(0, 300);
    }
  }
}

// Nothing can be measured in there from here: guess, and let people pull at the corner.
function height(body) {
  const rows = body.querySelectorAll("tr").length;
  const blocks = body.querySelectorAll("p,li,h1,h2,h3,h4,h5,h6,pre,dt,dd,br,summary,hr,blockquote").length;
  const text = body.textContent.length - (rows ? body.querySelector("table").textContent.length : 0);
  let images = 0;
  for (const image of body.querySelectorAll("img")) images += Math.min(Number(image.getAttribute("height")) || 240, 600);
  const lines = Math.max(blocks, Math.ceil(Math.max(0, text) / 120));
  return Math.round(Math.min(480, Math.max(38, 18 + rows * 27 + lines * 24 + images)));
}
