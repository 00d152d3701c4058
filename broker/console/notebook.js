// A session's cells in order: those that the broker remembers, then what comes.

import { Cell } from "./cells.js";
import { el, soon } from "./dom.js";
import { clip, plural } from "./format.js";
import { because } from "./words.js";

const MOST = 300; // cells in the page

export class Notebook {
  // `answer(event, value)` answers a question; null where this token may not.
  constructor(answer) {
    this.answer = answer;
    this.cells = []; // with what stands between them, in order
    this.byId = new Map();
    this.earlier = new Map(); // cells out of the transcript, by generation and count
    this.displays = new Map();
    this.generation = null;
    this.python = true;
    this.dropped = 0;
    this.top = el("p", { class: "remark top", hidden: true });
    this.empty = el("p", { class: "remark empty", hidden: true }, "Nothing has run here yet.");
    this.element = el(
      "div",
      { class: "notebook", role: "feed", "aria-label": "Cells" },
      this.top,
      this.empty,
    );
  }

  // Draw a transcript, a few cells in each frame; resolves when all are there.
  load(notebook) {
    this.python = (notebook.metadata?.language_info?.name ?? "python") === "python";
    const rows = notebook.cells.slice(-MOST);
    this.dropped += notebook.cells.length - rows.length;
    let at = 0;
    return new Promise((resolve) => {
      const more = () => {
        for (
          const end = performance.now() + 8;
          at < rows.length && performance.now() < end;
          at += 1
        )
          this.told(rows[at]);
        if (at < rows.length) soon(() => more());
        else resolve();
      };
      more();
    });
  }

  told(row) {
    const about = row.metadata?.broker ?? {};
    if (row.cell_type !== "code") {
      if (about.lost !== undefined)
        this.divide(`generation ${about.generation ?? "?"}`, about.lost || "unknown");
      return;
    }
    const cell = this.add(
      new Cell({
        id: null,
        code: textOf(row.source),
        count: row.execution_count,
        state: "ok",
        python: this.python,
      }),
    );
    for (const output of row.outputs ?? []) shown(cell, output, this.displays);
    cell.end({ status: "ok", ...about, execution_count: row.execution_count });
    this.earlier.set(keyOf(about.generation, row.execution_count, about.id ?? cell.code), cell);
  }

  add(cell, at = this.cells.length) {
    this.empty.hidden = true;
    this.element.insertBefore(cell.element, this.cells[at]?.element ?? null);
    this.cells.splice(at, 0, cell);
    if (cell.id) this.byId.set(cell.id, cell);
    while (this.cells.length > MOST) this.remove(this.cells[0], (this.dropped += 1));
    if (this.dropped) {
      this.top.hidden = false;
      const dropped = plural(this.dropped, "earlier cell");
      this.top.textContent = `${dropped} not shown; the notebook has those that are kept.`;
    }
    return cell;
  }

  remove(cell) {
    this.cells.splice(this.cells.indexOf(cell), 1);
    if (this.byId.get(cell.id) === cell) this.byId.delete(cell.id);
    cell.element.remove();
  }

  divide(title, reason, text = "the variables above were lost") {
    const words = reason ? `${text} (${clip(because(reason), 200)})` : text;
    const element = el(
      "div",
      { class: "divide", role: "separator" },
      el("strong", {}, title),
      el("span", {}, words),
    );
    // What waits for its turn has its turn on the new kernel.
    this.add({ id: null, element }, this.cells.findLastIndex((one) => one.state !== "queued") + 1);
  }

  // What this page has sent, before anybody has said a word of it.
  sent(id, code) {
    this.add(new Cell({ id, code, origin: "console", state: "queued", python: this.python })).wait(
      0,
    );
  }

  refused(id, text) {
    const cell = this.byId.get(id);
    cell?.fail({ message: text });
    cell?.end({ status: "aborted" });
  }

  take(event) {
    if (event.type === "session") return this.session(event);
    const cell = this.of(event);
    if (!cell) return;
    if (PAST.has(event.type)) cell.endQuestion();
    const take = TAKE[event.type];
    if (take) take(cell, event, this);
  }

  // The cell that an event belongs to; made where it is the first of it.
  of(event) {
    if (!(event.type in TAKE)) return null;
    const id =
      event.id === undefined
        ? ""
        : event.cell === undefined
          ? event.id
          : `${event.id} ${event.cell}`;
    const known = this.byId.get(id);
    if (known || (event.type === "done" && event.cells !== undefined)) return known;
    if (
      event.type === "done" &&
      this.earlier.has(keyOf(event.generation, event.execution_count, event.id))
    )
      return null;
    if (event.type === "queued" && event.id === undefined) return null;
    const origin = id.startsWith("console-") ? "console" : event.origin;
    const made = this.add(
      new Cell({
        id: id || null,
        origin,
        state: event.type === "queued" ? "queued" : "running",
        python: this.python,
      }),
    );
    if (!id) {
      made.show("ok", null);
      made.remark("Printed by threads of cells that have ended:");
    } else if (!["started", "queued", "done"].includes(event.type)) {
      made.partial = true;
      made.remark("The beginning of this cell is not kept.");
    }
    this.byId.set(id, made);
    return made;
  }

  session(event) {
    if (
      event.open === undefined &&
      event.state === "lost" &&
      event.generation > (this.generation ?? 0) &&
      this.generation !== null
    )
      this.divide(`generation ${event.generation}`, event.reason);
    this.empty.hidden = this.cells.length > 0;
    this.generation = event.generation;
    for (const asked of event.waiting ?? [])
      if (asked.type === "input_request" && this.byId.has(asked.id)) this.take(asked);
    if (event.missed) this.settle(new Set(event.open));
  }

  // What had begun before, neither runs nor waits any more, and has no end here a moment after
  // coming back: its end is among what was missed. Of what begins from now on, nothing was.
  settle(open) {
    const begun = [...this.byId].filter(
      ([id, cell]) => id && cell.began && !open.has(id.split(" ")[0]),
    );
    setTimeout(() => {
      for (const [id, cell] of begun)
        if (this.byId.get(id) === cell && cell.generation === undefined) {
          cell.end({ status: "lost", reason: "its end was not heard; the notebook has it" });
          this.byId.delete(id);
        }
    }, 1500);
  }

  // One cell may stand in the transcript and come with its events; the fuller one stays.
  supersede(cell, event) {
    const keys = [event.id, cell.code].map((one) =>
      keyOf(event.generation, event.execution_count, one),
    );
    const key = keys.find((one) => this.earlier.has(one));
    if (key === undefined) return;
    const earlier = this.earlier.get(key);
    this.earlier.delete(key);
    this.remove(cell.partial ? cell : earlier);
  }

  // The cell that runs, as far as this page has heard of it.
  get running() {
    return [...this.byId.values()].find((one) => one.state === "running" && one.began) ?? null;
  }

  tick() {
    for (const cell of this.byId.values()) cell.tick?.();
  }
}

// What tells that somebody else has answered what a cell asked: its threads may print meanwhile.
const PAST = new Set(["result", "value", "error"]);

const TAKE = {
  queued: (cell, event) => cell.wait(event.position),
  started: (cell, event) => cell.start(event),
  stream: (cell, event) => cell.write(event.name, event.text),
  display: (cell, event, book) =>
    cell.rich(event.data, { displayId: event.display_id, update: event.update }, book.displays),
  result: (cell, event, book) => cell.rich(event.data, { result: true }, book.displays),
  value: (cell, event) =>
    cell.rich(event.data ?? { "application/json": event.value }, { result: true }),
  clear: (cell, event) => cell.clear(event.wait),
  error: (cell, event) => cell.fail(event),
  input_request: (cell, event, book) =>
    cell.question(event, book.answer && ((value) => book.answer(event, value, cell))),
  tool_call: (cell, event) => cell.remark(`called the host tool ${clip(String(event.name), 100)}`),
  done: (cell, event, book) => {
    cell.end(event);
    book.byId.delete(cell.id);
    book.supersede(cell, event);
  },
};

// The count names a cell of a kernel; where it has none, its id does, or else its code.
function keyOf(generation, count, name) {
  return `${generation ?? ""} ${count ?? `: ${name}`}`;
}

function textOf(source) {
  return Array.isArray(source) ? source.join("") : String(source ?? "");
}

function shown(cell, output, displays) {
  if (output.output_type === "stream")
    cell.write(output.name === "stderr" ? "stderr" : "stdout", textOf(output.text));
  else if (output.output_type === "error")
    cell.fail({ name: output.ename, message: output.evalue, traceback: output.traceback });
  else if (output.data)
    cell.rich(output.data, { result: output.output_type === "execute_result" }, displays);
}
