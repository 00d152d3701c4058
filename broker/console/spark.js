// The last minutes of a number, as a line.

import { el, say, svg } from "./dom.js";

const KEPT = 120; // points
const FEW = 20; // steps across, until there are more
const WIDTH = 120;
const HEIGHT = 30;

export class Spark {
  // `format` makes text of a value; `least` is the smallest top of the scale.
  constructor(title, format, least = 1) {
    this.points = [];
    this.format = format;
    this.least = least;
    this.value = el("output", { class: "value" }, "–");
    this.about = el("span", { class: "about" });
    this.line = svg("path", { class: "line" });
    this.area = svg("path", { class: "area" });
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.line,
    );
    this.element = el(
      "div",
      { class: "tile" },
      el("h3", {}, title),
      el("div", { class: "figure" }, this.value, this.about),
      picture,
    );
  }

  add(value, about = "") {
    this.element.hidden = value === null;
    if (value === null) return;
    this.points.push(value);
    if (this.points.length > KEPT) this.points.shift();
    say(this.value, this.format(value));
    say(this.about, about);
    this.element.title =
      this.points.length > 1 ? `Most of late: ${this.format(Math.max(...this.points))}` : "";
    this.draw();
  }

  draw() {
    const top = Math.max(this.least, ...this.points) * 1.1;
    const step = WIDTH / Math.max(FEW, this.points.length - 1);
    const from = WIDTH - (this.points.length - 1) * step;
    const spots = this.points.map((value, at) => {
      const y = HEIGHT - 1 - (value / top) * (HEIGHT - 3);
      return `${(from + at * step).toFixed(1)},${y.toFixed(1)}`;
    });
    this.line.setAttribute("d", `M${spots.join("L")}`);
    this.area.setAttribute(
      "d",
      `M${from.toFixed(1)},${HEIGHT}L${spots.join("L")}L${WIDTH},${HEIGHT}Z`,
    );
  }
}
