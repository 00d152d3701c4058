// A stream's text as it comes: its head and its tail are in the page, all of it in memory, up to a
// bound.

import { save } from "./api.js";
import { button, el, soon } from "./dom.js";
import { count, plural } from "./format.js";
import { Lines, drawn, plain } from "./terminal.js";

const HEAD = 60; // lines
const TAIL = 60;
const WIDE = 2000; // characters of a line in the page
const MOST = 8 << 20; // characters kept of one stream
const PIECE = 32 << 10; // characters that are taken in at once
const BLOCK = 500; // lines; the browser lays out only the blocks in view

export class Text {
  constructor(name) {
    this.lines = new Lines();
    this.kept = 0;
    this.gone = 0; // lines that are not kept
    this.counted = 0; // lines whose length is in `kept`
    this.all = false;
    this.first = el("pre");
    this.middle = el("div", { class: "hidden-lines", hidden: true });
    this.tail = el("pre");
    this.element = el("div", { class: `stream ${name}` }, this.first, this.middle, this.tail);
    this.name = name;
    this.frozen = false; // the head is full, and does not change any more
    this.draw = () => this.drawNow();
    this.due = []; // pieces of text
    this.next = () => this.takeNext();
  }

  // A long text is taken in piece by piece, a few in each frame; what waits is bounded, since a
  // page that nobody looks at has no frames.
  write(text) {
    if (!this.due.length && text.length <= PIECE) return this.take(text);
    text = (this.due.pop() ?? "") + text;
    for (let at = 0; at < text.length; at += PIECE) this.due.push(text.slice(at, at + PIECE));
    if (this.due.length * PIECE > MOST) this.takeAll();
    else soon(this.next);
  }

  takeNext() {
    if (this.due.length) this.take(this.due.shift());
    if (this.due.length) soon(this.next);
  }

  takeAll() {
    for (const text of this.due.splice(0)) this.take(text);
  }

  take(text) {
    this.lines.write(text);
    const { done } = this.lines;
    for (; this.counted < done.length; this.counted += 1)
      this.kept += done[this.counted].length + 1;
    if (this.lines.last.length > MOST) this.lines.last = this.lines.last.slice(0, MOST / 4);
    if (this.kept > MOST && done.length > HEAD + TAIL) this.drop();
    soon(this.draw);
  }

  drop() {
    const { done } = this.lines;
    const cut = done.splice(HEAD, Math.floor((done.length - HEAD - TAIL) / 2) + 1);
    this.gone += cut.length;
    for (const line of cut) this.kept -= line.length + 1;
    this.counted = done.length;
    this.blocks?.replaceChildren();
    this.full = 0; // blocks whose lines do not change any more
    // One line may be as long as all of it.
    done.forEach((line, index) => {
      if (line.length > MOST / 4) done[index] = line.slice(0, MOST / 4);
    });
  }

  get content() {
    const { done, last } = this.lines;
    return last === "" ? done : [...done, last];
  }

  drawNow() {
    const { done, last } = this.lines;
    const total = done.length + (last === "" ? 0 : 1);
    if (this.all) return this.drawAll();
    if (!this.frozen) {
      this.first.replaceChildren(...drawn(this.slice(0, HEAD), WIDE));
      this.frozen = done.length >= HEAD;
    }
    this.tail.replaceChildren(...drawn(this.slice(Math.max(HEAD, total - TAIL), total), WIDE));
    this.tell(total - HEAD - TAIL + this.gone);
  }

  slice(from, to) {
    const { done, last } = this.lines;
    const part = done.slice(from, to);
    if (to > done.length && from <= done.length && last !== "") part.push(last);
    return part;
  }

  tell(hidden) {
    this.middle.hidden = hidden <= 0;
    if (hidden <= 0) return;
    if (!this.label) {
      this.label = el("span");
      this.show = button("Show all", () => this.showAll(), { class: "link" });
      this.middle.append(
        this.label,
        this.show,
        button("Download", () => this.download(), { class: "link" }),
      );
    }
    const gone = this.gone ? ` (${count(this.gone)} of them not kept)` : "";
    this.label.textContent = `${plural(hidden, "line")} not shown${gone}`;
  }

  showAll() {
    this.all = true;
    soon(this.draw);
  }

  // In blocks, a few in each frame: the browser lays out those in view alone. One that is full is
  // drawn once, the last one again as it grows.
  drawAll() {
    if (!this.blocks) {
      this.show.remove();
      this.tail.replaceChildren();
      this.first.replaceChildren();
      this.blocks = el("div", { class: "blocks" });
      this.first.after(this.blocks);
      this.full = 0; // blocks that are
      this.more = () => this.drawBlock();
    }
    this.tell(this.gone);
    soon(this.more);
  }

  drawBlock() {
    const { length } = this.lines.done;
    const at = this.full * BLOCK;
    const lines = this.slice(at, at + BLOCK);
    if (!lines.length) return;
    const block = el("pre", { class: "block" }, ...drawn(lines, WIDE));
    block.style.containIntrinsicBlockSize = `auto ${lines.length * 18}px`;
    const before = this.blocks.children[this.full];
    if (before) before.replaceWith(block);
    else this.blocks.append(block);
    if (length < at + BLOCK) return;
    this.full += 1;
    soon(this.more);
  }

  download() {
    this.takeAll();
    save(`${this.content.map(plain).join("\n")}\n`, `${this.name}.txt`);
  }
}
