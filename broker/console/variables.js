// What the session's variables hold.

import { at, get } from "./api.js";
import { button, el } from "./dom.js";
import { bytes, clip, count, plural } from "./format.js";
import { explained } from "./words.js";

const MOST = 200;

export class Variables {
  constructor(session) {
    this.session = session;
    this.list = el("div", { class: "list" });
    this.element = el(
      "div",
      { class: "panel" },
      el(
        "div",
        { class: "head" },
        button("Read again", () => this.read(), { class: "link" }),
      ),
      this.list,
    );
  }

  async read() {
    if (this.reading) return;
    this.reading = true;
    try {
      const told = await get(at(this.session, `/variables?max=${MOST}`));
      this.draw(told);
    } catch (error) {
      const none = error.code === "unknown_session";
      this.list.replaceChildren(
        el(
          "p",
          { class: "remark" },
          none ? "There is no kernel, so there are no variables." : explained(error),
        ),
      );
    } finally {
      this.reading = false;
    }
  }

  draw({ variables, more }) {
    if (!variables.length)
      return this.list.replaceChildren(el("p", { class: "remark" }, "No variables yet."));
    this.list.replaceChildren(
      ...variables.map((one) =>
        el(
          "div",
          { class: "variable" },
          el("code", { class: "name" }, clip(one.name, 60)),
          el("span", { class: "type" }, clip(one.type, 40)),
          el("span", { class: "size" }, sizeOf(one)),
          el("code", { class: "preview", title: one.preview }, clip(one.preview, 300)),
        ),
      ),
    );
    if (more)
      this.list.append(el("p", { class: "remark" }, `and ${plural(more, "more variable")}`));
  }
}

function sizeOf(one) {
  if (one.shape) return one.shape.map(count).join(" × ");
  if (one.length !== undefined) return count(one.length);
  return one.size === undefined ? "" : bytes(one.size);
}
