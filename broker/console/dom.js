// Elements, made of text and never of markup; and work that is put off to the next frame.

const SVG = "http://www.w3.org/2000/svg";
const BUDGET = 10; // ms of one frame

export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

export function button(text, onclick, props = {}) {
  return el("button", { type: "button", onclick, ...props }, text);
}

// Set a text only where it is another: a node that stays the same costs no layout.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const due = new Set();
let waiting = false;

// Call `work` within a frame to come, once however often it is asked for; a frame that is full
// leaves the rest to the next one.
export function soon(work) {
  due.add(work);
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(run);
  }
}

function run() {
  const end = performance.now() + BUDGET;
  for (const work of due) {
    due.delete(work);
    work();
    if (performance.now() > end) break;
  }
  waiting = due.size > 0;
  if (waiting) requestAnimationFrame(run);
}

// A note at the bottom of the page, which goes by itself.
export function note(text, kind = "info") {
  const box = document.getElementById("notes");
  const one = el("div", { class: `note ${kind}` }, text);
  one.append(button("×", () => one.remove(), { class: "bare", "aria-label": "Dismiss" }));
  box.append(one);
  while (box.children.length > 4) box.firstChild.remove();
  setTimeout(() => one.remove(), kind === "error" ? 15000 : 5000);
}
