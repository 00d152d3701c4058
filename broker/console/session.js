// One session as a notebook: what it has run, what it runs, and a cell of one's own.

import { interrupted, killed } from "./acts.js";
import { ask, at, download, get, ofTenant, other } from "./api.js";
import { confirmed } from "./ask.js";
import { button, el, note, say } from "./dom.js";
import { count, span } from "./format.js";
import * as keys from "./keys.js";
import { Link } from "./link.js";
import { Notebook } from "./notebook.js";
import { idleOf, nameOf } from "./rows.js";
import { Runner } from "./runner.js";
import { Side } from "./side.js";
import { Refused, explained } from "./words.js";

const EACH = 5000; // ms between two looks at the session's row
const NEAR = 120; // pixels from the end at which the page follows
const SHOWN = new Set([
  "started",
  "stream",
  "display",
  "result",
  "value",
  "error",
  "input_request",
]);
const SETTLED = 400; // ms after a cell's end until variables are read again

export class SessionPage {
  constructor(me, name, tenant) {
    this.me = me;
    this.name = name;
    this.session = { name, tenant: other(tenant, me) };
    this.row = { session: name, tenant: tenant || me.tenant };
    this.called = nameOf(this.row, me.tenant);
    this.all = `#/${ofTenant(this.session.tenant)}`;
    this.mayRun = me.scopes.includes("run");
    this.mayKill = me.scopes.includes("run") || me.scopes.includes("admin");
    this.book = new Notebook(
      this.mayRun ? (event, value, cell) => this.answer(event, value, cell) : null,
    );
    this.link = new Link(
      this.session,
      (event) => this.take(event),
      (told) => this.connected(told),
    );
    this.runner = new Runner(
      (code) => this.run(code),
      this.mayRun ? null : "This token may watch, and not run.",
    );
    this.side = new Side(this.session, this.mayRun);
    this.element = el(
      "div",
      { class: "session-page" },
      this.header(),
      el(
        "div",
        { class: "columns" },
        el("div", { class: "main" }, this.book.element, this.runner.element),
        this.side.element,
      ),
      this.newer(),
    );
    this.visible = () => document.visibilityState === "visible" && this.look();
    this.scrolled = () => {
      this.atEnd = this.isAtEnd();
      if (this.atEnd) this.seen();
    };
  }

  header() {
    this.pill = el("span", { class: "pill" }, "…");
    this.facts = el(
      "span",
      { class: "facts" },
      this.session.tenant ? `tenant ${this.session.tenant}` : "",
    );
    this.live = el("span", { class: "following", role: "status" }, "connecting");
    this.stop =
      this.mayRun &&
      button("Interrupt…", () => this.interrupt(), { title: "Interrupt what runs (i)" });
    this.ends = [
      this.mayRun && button("Restart…", () => this.restart()),
      this.mayKill && button("Kill…", () => this.kill(), { class: "danger-text" }),
    ].filter(Boolean);
    return el(
      "div",
      { class: "session-head" },
      el(
        "div",
        { class: "title" },
        el("a", { href: this.all, class: "back", "aria-label": "All sessions" }, "←"),
        el("h1", {}, this.name),
        this.pill,
        this.live,
        this.facts,
      ),
      el(
        "div",
        { class: "acts" },
        this.stop,
        ...this.ends,
        button("Download .ipynb", () => this.save()),
        button("Variables, files", () => this.element.classList.toggle("side-open"), {
          class: "side-toggle",
        }),
      ),
    );
  }

  newer() {
    this.below = button("↓ New output", () => this.toEnd(), { class: "newer", hidden: true });
    return this.below;
  }

  async begin() {
    document.title = `${this.called} – kernel-broker`;
    document.addEventListener("visibilitychange", this.visible);
    addEventListener("scroll", this.scrolled, { passive: true });
    keys.use([
      { key: "e", does: "write a cell", act: () => this.mayRun && this.runner.focus() },
      { key: "Shift+Enter", does: "run it" },
      { key: "i", does: "interrupt what runs", act: () => this.mayRun && this.interrupt() },
      { key: "j", shown: "j k", does: "next cell, the one before", act: () => this.step(1) },
      { key: "k", act: () => this.step(-1) },
      { key: "G", does: "to the end", act: () => this.toEnd() },
      { key: "x", does: "kill the session", act: () => this.mayKill && this.kill() },
      { key: "d", does: "download the notebook", act: () => this.save() },
      { key: "u", does: "back to all sessions", act: () => (location.hash = this.all) },
    ]);
    this.ticking = setInterval(() => this.book.tick(), 250);
    this.growth = new ResizeObserver(() => this.grown());
    this.growth.observe(this.book.element);
    this.look();
    try {
      await this.book.load(await get(at(this.session, "/notebook")));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.book.empty.hidden = false;
      say(this.book.empty, explained(error));
      if (error.code === "unknown_session")
        return this.connected({ state: "ended", text: "no such session" });
    }
    if (this.closed) return;
    this.toEnd();
    this.link.open();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.settling);
    clearInterval(this.ticking);
    this.growth?.disconnect();
    this.link.close();
    document.removeEventListener("visibilitychange", this.visible);
    removeEventListener("scroll", this.scrolled);
  }

  // What comes

  take(event) {
    if (event.type === "fault") return this.fault(event);
    if (event.type === "reply" || event.type === "pong") return;
    this.book.take(event);
    if (SHOWN.has(event.type) && !this.atEnd) this.fresh = true;
    if (event.type === "started") this.state("busy");
    if (event.type === "done") this.state("ready");
    if (event.type === "done" || event.type === "session") this.settle();
  }

  fault(event) {
    const refused = explained(new Refused(event.code === "unauthorized" ? 401 : 400, event));
    if (event.id && this.book.byId.has(event.id)) this.book.refused(event.id, refused);
    else note(refused, "error");
  }

  // Once a burst of cells is over, what they may have changed is read again.
  settle() {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.side.read();
      this.look();
    }, SETTLED);
  }

  connected({ state, text }) {
    this.live.className = `following ${state}`;
    say(this.live, text);
    if (state === "ended") this.look();
  }

  async look() {
    clearTimeout(this.timer);
    try {
      const row = await get(at(this.session));
      this.state(row.state);
      const facts = [
        this.session.tenant && `tenant ${this.session.tenant}`,
        `generation ${count(row.generation)}`,
        row.profile,
        row.state === "ready" && `idle ${span(idleOf(row))}`,
      ];
      say(this.facts, facts.filter(Boolean).join(" · "));
    } catch (error) {
      if (error.status === 404) this.state("closed");
    }
    if (!this.closed && document.visibilityState === "visible")
      this.timer = setTimeout(() => this.look(), EACH);
  }

  state(name) {
    this.is = name;
    this.pill.className = `pill state-${name}`;
    say(this.pill, name);
    if (this.stop) this.stop.disabled = name !== "busy";
    for (const one of this.ends) one.disabled = name === "closed";
  }

  // What is done

  run(code) {
    const id = `console-${crypto.getRandomValues(new Uint32Array(3)).join("-")}`;
    this.book.sent(id, code);
    this.link.send({ type: "execute", id, code, metadata: { origin: "console" } });
    this.toEnd();
  }

  answer(event, value, cell) {
    const message = {
      type: "input_reply",
      id: `console-answer-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
      value,
    };
    if (event.question !== undefined) message.question = event.question;
    cell.endQuestion();
    this.link.send(message);
  }

  async interrupt() {
    const running = this.book.running;
    const cell = running && { id: running.execution, seconds: running.seconds };
    await interrupted({ ...this.row, state: this.is, cell, code: running?.code }, this.me);
  }

  async restart() {
    const text = [
      "It gets a new kernel: all variables are gone, for the chat, too. Its files stay.",
    ];
    if (!(await confirmed({ title: `Restart ${this.called}?`, text, act: "Restart" }))) return;
    try {
      const told = await ask("POST", at(this.session, "/restart"));
      note(`${this.called}: generation ${told.generation}`);
      this.link.again();
    } catch (error) {
      note(explained(error), "error");
    }
    this.look();
  }

  async kill() {
    if (await killed(this.row, this.me)) this.look();
  }

  async save() {
    try {
      await download(at(this.session, "/notebook"), `${this.name}.ipynb`);
    } catch (error) {
      note(explained(error), "error");
    }
  }

  // Where one is

  isAtEnd() {
    const { scrollHeight } = document.documentElement;
    return scrollHeight - scrollY - innerHeight < NEAR;
  }

  toEnd() {
    this.atEnd = true;
    this.seen();
    scrollTo({ top: document.documentElement.scrollHeight });
  }

  seen() {
    this.fresh = false;
    this.below.hidden = true;
  }

  grown() {
    const height = document.documentElement.scrollHeight;
    const was = this.height ?? height;
    this.height = height;
    if (was - scrollY - innerHeight < NEAR) scrollTo({ top: height });
    else if (height > was && this.fresh) this.below.hidden = false;
  }

  step(by) {
    const all = [...this.book.element.querySelectorAll(".cell")];
    const line = document.getElementById("bar").offsetHeight + 60;
    const tops = all.map((one) => one.getBoundingClientRect().top - line);
    const now = by > 0 ? tops.findIndex((top) => top > 4) : tops.findLastIndex((top) => top < -4);
    if (now >= 0) scrollTo({ top: scrollY + tops[now] });
  }
}
