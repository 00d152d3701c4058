// Elements, made of text and never of markup; and work that is put off to the next frame.

const SVG = "http://www.w3.org/2000/svg";
const BUDGET = 10; // ms of one frame

// These turn the direction of the text around them, and make it read as what it is not.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
const SAID = new Set(["title", "aria-label"]);

// A stranger's text with a sign for each character that turns it.
export function straight(text) {
  return text.replace(TURNING, (one) => `[U+${one.charCodeAt(0).toString(16).toUpperCase()}]`);
}

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
    else
      node.setAttribute(
        name,
        value === true ? "" : SAID.has(name) ? straight(String(value)) : value,
      );
  }
  const there = children.flat().filter((one) => one !== null && one !== undefined && one !== false);
  node.append(...there.map((one) => (typeof one === "string" ? straight(one) : one)));
  return node;
}

export function button(text, onclick, props = {}) {
  return el("button", { type: "button", onclick, ...props }, text);
}

// Set a text only where it is another: a node that stays the same costs no layout.
export function say(node, text) {
  text = straight(String(text));
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
