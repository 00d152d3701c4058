// One cell: its code, its outputs, and how it went.

import { button, el, say, soon, straight } from "./dom.js";
import { bytes, clip, plural, seconds } from "./format.js";
import { rich } from "./outputs.js";
import { highlighted } from "./python.js";
import { Text } from "./text.js";
import { plain, unescaped } from "./terminal.js";
import { because } from "./words.js";

const OUTPUTS = 300; // of one cell in the page
const DISPLAYS = 2000; // that can still be changed
const TRACE = 60; // lines of a traceback
const FOLDED = 40; // lines of code that are shown at first
const CODE = 200 << 10; // characters
const ENDS = {
  ok: "done",
  error: "failed",
  timeout: "out of time",
  interrupted: "interrupted",
  cancelled: "cancelled",
  aborted: "not run",
  lost: "lost",
};

const ORIGINS = { __proto__: null, console: "run from a console", operator: "run by the operator" };

export class Cell {
  constructor({ id, code, count, origin, state, python = true }) {
    this.id = id;
    this.count = count ?? null;
    this.code = code ?? "";
    this.generation = undefined;
    this.python = python;
    this.outputs = [];
    this.displays = new Map(); // by display_id, the boxes that show it
    this.clearing = false;
    this.number = el("span", { class: "number" });
    this.mark = el("span", { class: "mark" });
    this.origin = el("span", { class: "origin", hidden: true });
    this.source = el("pre", { class: "code" });
    this.box = el("div", { class: "outputs" });
    this.foot = el("div", { class: "foot" });
    this.more = el("div", { class: "fold", hidden: true });
    this.element = el(
      "article",
      { class: "cell", "aria-label": "Cell" },
      el("div", { class: "gutter" }, this.mark, this.number),
      el("div", { class: "body" }, this.origin, this.source, this.more, this.box, this.foot),
    );
    this.drawCode();
    this.show(state, origin);
  }

  show(state, origin) {
    this.state = state ?? this.state;
    if (origin) {
      this.origin.hidden = false;
      say(this.origin, ORIGINS[origin] ?? `run from ${clip(String(origin), 40)}`);
      this.element.classList.add("by-hand");
    }
    say(this.number, `[${this.state === "running" ? "*" : (this.count ?? " ")}]`);
    this.mark.className = `mark ${this.state}`;
    this.mark.title = this.state;
    this.element.dataset.state = this.state;
  }

  start(event) {
    this.count = event.execution_count;
    this.began = performance.now();
    if (event.code !== undefined && event.code !== this.code) {
      this.code = event.code;
      this.drawCode();
    }
    this.show("running", event.origin);
    this.tick();
  }

  drawCode(all = false) {
    const code = this.code.slice(0, CODE).replace(/\n+$/, "");
    const lines = code.split("\n");
    const long = lines.length > FOLDED + 10 && !all;
    const text = long ? lines.slice(0, FOLDED).join("\n") : code;
    this.source.replaceChildren(this.python ? highlighted(text) : straight(text));
    this.source.hidden = !code;
    this.more.hidden = !long;
    if (long)
      this.more.replaceChildren(
        button(`Show ${plural(lines.length - FOLDED, "more line")}`, () => this.drawCode(true), {
          class: "link",
        }),
      );
  }

  tick() {
    if (this.state === "running" && this.began) say(this.foot, `running, ${seconds(this.seconds)}`);
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  // The id of what it runs in: a batch has many cells.
  get execution() {
    return this.id.split(" ")[0];
  }

  wait(position) {
    this.show("queued");
    say(this.foot, position > 1 ? `waits, ${position - 1} before it` : "waits for its turn");
  }

  write(name, text) {
    this.cleared();
    let last = this.outputs.at(-1);
    if (!(last instanceof Text) || last.name !== name) {
      last = new Text(name);
      if (!this.add(last)) return;
    }
    last.write(text);
  }

  rich(data, { displayId, update, result } = {}, everywhere = this.displays) {
    if (update && displayId) {
      for (const box of everywhere.get(displayId) ?? []) {
        box.due = data;
        soon(box.draw);
      }
      return;
    }
    this.cleared();
    const element = el("div", { class: result ? "output result" : "output" });
    const box = { element, due: data };
    box.draw = () => {
      if (box.due) element.replaceChildren(rich(box.due));
      box.due = null;
    };
    soon(box.draw);
    if (!this.add(box) || !displayId) return;
    everywhere.set(displayId, [...(everywhere.get(displayId) ?? []).slice(-9), box]);
    if (everywhere.size > DISPLAYS) everywhere.delete(everywhere.keys().next().value);
  }

  fail(event) {
    this.cleared();
    const lines = unescaped((event.traceback ?? []).join("\n")).split("\n");
    const kept =
      lines.length > TRACE
        ? [
            ...lines.slice(0, 10),
            `… ${plural(lines.length - TRACE, "line")} …`,
            ...lines.slice(-(TRACE - 10)),
          ]
        : lines;
    const title = event.name ? `${event.name}: ${event.message ?? ""}` : (event.message ?? "");
    const trace = el("pre", {}, kept.map((line) => clip(line, 2000)).join("\n"));
    const open = lines.length <= 14;
    this.add({
      element: el(
        "div",
        { class: "failure", role: "group", "aria-label": "Error" },
        el("strong", {}, clip(plain(title), 600)),
        kept.join("").trim() && el("details", { open }, el("summary", {}, "Traceback"), trace),
      ),
    });
  }

  remark(text) {
    this.add({ element: el("div", { class: "remark" }, text) });
  }

  add(output) {
    if (this.outputs.length >= OUTPUTS) {
      this.over = (this.over ?? 0) + 1;
      this.overflow ??= this.box.appendChild(el("div", { class: "remark" }));
      soon(
        (this.tellOver ??= () =>
          say(
            this.overflow,
            `${plural(this.over, "more output")} not shown; the notebook has them.`,
          )),
      );
      return false;
    }
    this.outputs.push(output);
    this.box.append(output.element);
    return true;
  }

  clear(wait) {
    this.clearing = true;
    if (!wait) this.cleared();
  }

  cleared() {
    if (!this.clearing) return;
    this.clearing = false;
    this.outputs = [];
    this.overflow = undefined;
    this.over = 0;
    this.box.replaceChildren();
  }

  // `event` is a `done`, or as much of one as a notebook keeps.
  end(event) {
    if (event.execution_count !== undefined && event.execution_count !== null)
      this.count = event.execution_count;
    this.generation = event.generation ?? this.generation;
    this.endQuestion();
    this.show(event.status ?? "ok", event.origin);
    const parts = [el("span", { class: `status ${this.state}` }, ENDS[this.state] ?? this.state)];
    const say_ = (text, title) => parts.push(el("span", { title }, text));
    if (event.reason) say_(because(event.reason));
    if (typeof event.duration === "number") say_(seconds(event.duration), "Duration");
    if (event.cpu > 0.01) say_(`${seconds(event.cpu)} CPU`, "Processor time");
    if (event.memory_peak) say_(`${bytes(event.memory_peak)} peak`, "Most memory");
    if (event.truncated) {
      const { shown, total, file } = event.truncated;
      say_(`${bytes(shown)} of ${bytes(total)} shown${file ? `, all in ${file}` : ""}`);
    }
    for (const file of (event.files ?? []).slice(0, 5))
      say_(`${file.change} ${clip(file.path, 60)}`);
    const more = Math.max(0, (event.files ?? []).length - 5) + (event.files_more ?? 0);
    if (more) say_(`and ${plural(more, "more file")}`);
    this.foot.replaceChildren(...parts);
  }

  // A line that the code waits for. `answer` takes the text, or null for the end of input.
  question(event, answer) {
    this.endQuestion();
    const type = event.password ? "password" : "text";
    const prompt = clip(unescaped(String(event.prompt ?? "")), 2000);
    if (!answer) {
      this.asked = el(
        "div",
        { class: "asked" },
        el("span", { class: "prompt" }, prompt),
        el("em", {}, "waits for an answer; this token may only watch"),
      );
    } else {
      const input = el("input", {
        type,
        autocomplete: "off",
        spellcheck: "false",
        "aria-label": prompt.trim() || "Answer",
      });
      this.asked = el(
        "form",
        { class: "asked" },
        el("span", { class: "prompt" }, prompt),
        input,
        el("button", { type: "submit", class: "primary" }, "Answer"),
        button("End of input", () => answer(null), { class: "link" }),
      );
      this.asked.addEventListener("submit", (submitted) => {
        submitted.preventDefault();
        answer(input.value);
      });
    }
    this.box.after(this.asked); // below what is printed meanwhile, and not cleared with it
    this.asked.querySelector("input")?.focus({ preventScroll: false });
  }

  endQuestion() {
    this.asked?.remove();
    this.asked = undefined;
  }
}
