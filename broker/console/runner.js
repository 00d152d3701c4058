// The cell at the end, for code of the one who looks.

import { button, el } from "./dom.js";
import { highlighted } from "./python.js";

const KEPT = 50;

export class Runner {
  // `run(code)` runs it; `why` says why it cannot be, where it cannot.
  constructor(run, why) {
    this.run = run;
    this.past = [];
    this.at = 0;
    this.input = el("textarea", {
      id: "code",
      rows: 2,
      spellcheck: "false",
      autocapitalize: "off",
      autocomplete: "off",
      "aria-label": "Code to run in this session",
      placeholder: "Python, to run in this session",
      onkeydown: (event) => this.key(event),
      oninput: () => this.drawn(),
    });
    this.back = el("pre", { class: "code back", "aria-hidden": "true" });
    this.button = button("Run", () => this.submit(), {
      class: "primary",
      "aria-keyshortcuts": "Shift+Enter",
    });
    this.element = why
      ? el("div", { class: "runner off" }, el("p", {}, why))
      : el(
          "div",
          { class: "runner" },
          el("div", { class: "editor" }, this.back, this.input),
          el(
            "div",
            { class: "acts" },
            el(
              "span",
              { class: "hint" },
              "Runs beside the chat's own cells, on the same variables, and is marked as yours. ",
              el("kbd", {}, "Shift"),
              " ",
              el("kbd", {}, "Enter"),
            ),
            this.button,
          ),
        );
  }

  key(event) {
    if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && this.input.selectionEnd === 0) this.recall(event, -1);
    else if (event.key === "ArrowDown" && this.input.selectionStart === this.input.value.length)
      this.recall(event, 1);
    else if (event.key === "Enter") this.indent(event);
  }

  // A new line begins where the last one did, and deeper after a colon.
  indent(event) {
    const { value, selectionStart: at } = this.input;
    const line = value.slice(value.lastIndexOf("\n", at - 1) + 1, at);
    const space = line.match(/^[ \t]*/)[0] + (/:\s*$/.test(line) ? "    " : "");
    if (!space) return;
    event.preventDefault();
    this.input.setRangeText(`\n${space}`, at, this.input.selectionEnd, "end");
    this.drawn();
  }

  recall(event, step) {
    const next = this.at + step;
    if (next < 0 || next > this.past.length) return;
    event.preventDefault();
    this.at = next;
    this.input.value = this.past[next] ?? "";
    this.input.setSelectionRange(0, 0);
    this.drawn();
  }

  drawn() {
    this.back.replaceChildren(highlighted(`${this.input.value}\n`));
    this.input.style.blockSize = "auto";
    this.input.style.blockSize = `${Math.min(this.input.scrollHeight + 2, innerHeight * 0.4)}px`;
  }

  submit() {
    const code = this.input.value;
    if (!code.trim()) return;
    this.past = [...this.past.filter((one) => one !== code), code].slice(-KEPT);
    this.at = this.past.length;
    this.input.value = "";
    this.drawn();
    this.run(code);
  }

  focus() {
    this.input.focus();
    this.element.scrollIntoView({ block: "end" });
  }
}
