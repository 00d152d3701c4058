// The last minutes of a number, as a line.

import { el, say, svg } from "./dom.js";
import { NONE } from "./format.js";

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
    this.value = el("output", { class: "value" }, NONE);
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

  // `value` is null where nobody knows it: the line has a gap there. `what` says more of it.
  add(value, about = "", what = "") {
    if (value !== null || this.points.length) this.points.push(value);
    if (this.points.length > KEPT) this.points.shift();
    const known = this.points.filter((one) => one !== null);
    say(this.value, value === null ? NONE : this.format(value));
    say(this.about, about);
    const most = known.length > 1 ? `Most of late: ${this.format(Math.max(...known))}` : "";
    this.element.title = [what, most].filter(Boolean).join("\n");
    this.draw(Math.max(this.least, ...known) * 1.1);
  }

  draw(top) {
    const step = WIDTH / Math.max(FEW, this.points.length - 1);
    const from = WIDTH - (this.points.length - 1) * step;
    const runs = [[]]; // of points without a gap between them
    this.points.forEach((value, at) => {
      if (value === null) return runs.push([]);
      const y = HEIGHT - 1 - (value / top) * (HEIGHT - 3);
      runs.at(-1).push([(from + at * step).toFixed(1), y.toFixed(1)]);
    });
    const drawn = runs.filter((run) => run.length);
    const path = (run) => run.map((spot) => spot.join()).join("L");
    this.line.setAttribute("d", drawn.map((run) => `M${path(run)}h0.1`).join(""));
    this.area.setAttribute(
      "d",
      drawn
        .map((run) => `M${run[0][0]},${HEIGHT}L${path(run)}L${run.at(-1)[0]},${HEIGHT}Z`)
        .join(""),
    );
  }
}
