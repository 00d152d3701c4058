// Sessions as rows of a list of which only those in view are in the page.

import { ofTenant } from "./api.js";
import { el, say, soon, straight } from "./dom.js";
import { bytes, clip, count, span } from "./format.js";
import { because } from "./words.js";

const AROUND = 8; // rows above and below the view
const NARROW = matchMedia("(max-width: 720px)");

export const COLUMNS = [
  { key: "session", title: "Session", of: (row) => row.session },
  { key: "state", title: "State", of: (row) => row.state },
  { key: "generation", title: "Gen", number: true, of: (row) => row.generation },
  { key: "idle", title: "Idle", number: true, of: idleOf },
  { key: "memory", title: "Memory", number: true, of: (row) => row.memory ?? -1 },
  { key: "cpu", title: "CPU", number: true, of: (row) => row.usage?.cpu_seconds ?? -1 },
  { key: "executions", title: "Cells", number: true, of: (row) => row.executions ?? -1 },
  { key: "clients", title: "Clients", number: true, of: (row) => row.clients ?? -1 },
  { key: "error", title: "Last error", of: errorOf },
];

export function idleOf(row) {
  if (row.state === "busy") return 0;
  return row.idle ?? Math.max(0, Date.now() / 1000 - row.last_used);
}

export function errorOf(row) {
  return row.last_error || because(row.reason);
}

// Where a session's page is, for who is of `tenant`.
export function pageOf(row, tenant) {
  const query = ofTenant(row.tenant === tenant ? null : row.tenant);
  return `#/s/${encodeURIComponent(row.session)}${query}`;
}

// A session as it is named to who is of `tenant`.
export function nameOf(row, tenant) {
  return row.tenant === tenant ? row.session : `${row.session} of tenant ${row.tenant}`;
}

export function keyOf(row) {
  return `${row.tenant}/${row.session}`;
}

export class Rows {
  // `acts` are {open, interrupt, kill}, each of a row; `may` says which of them are there; `tenant`
  // is that of who looks.
  constructor(acts, may, tenant) {
    this.acts = acts;
    this.tenant = tenant;
    this.may = may;
    this.rows = [];
    this.chosen = null;
    this.drawn = new Map();
    this.element = el("div", {
      class: "rows",
      role: "rowgroup",
      onclick: (event) => this.clicked(event),
      onfocusin: (event) => this.focused(event),
    });
    this.draw = () => this.drawNow();
    this.seen = () => soon(this.draw);
    addEventListener("scroll", this.seen, { passive: true });
    addEventListener("resize", this.seen);
  }

  close() {
    removeEventListener("scroll", this.seen);
    removeEventListener("resize", this.seen);
  }

  get size() {
    return NARROW.matches ? 58 : 34;
  }

  set(rows) {
    this.rows = rows;
    if (this.chosen !== null && !rows.some((row) => keyOf(row) === this.chosen)) this.chosen = null;
    soon(this.draw);
  }

  get current() {
    return this.rows.find((row) => keyOf(row) === this.chosen) ?? null;
  }

  move(step) {
    if (!this.rows.length) return;
    const now = this.rows.findIndex((row) => keyOf(row) === this.chosen);
    this.choose(
      Math.min(
        this.rows.length - 1,
        Math.max(0, now < 0 ? (step > 0 ? 0 : this.rows.length - 1) : now + step),
      ),
    );
  }

  choose(index) {
    this.chosen = keyOf(this.rows[index]);
    const top = this.element.getBoundingClientRect().top + scrollY + index * this.size;
    const bar = document.getElementById("bar").offsetHeight + 40;
    if (top < scrollY + bar) scrollTo({ top: top - bar });
    else if (top + this.size > scrollY + innerHeight - 8)
      scrollTo({ top: top + this.size - innerHeight + 8 });
    this.drawNow();
    this.drawn.get(this.chosen)?.focus({ preventScroll: true });
  }

  drawNow() {
    const { size } = this;
    const { top } = this.element.getBoundingClientRect();
    const first = Math.max(0, Math.floor(-top / size) - AROUND);
    const last = Math.min(this.rows.length, Math.ceil((innerHeight - top) / size) + AROUND);
    // The last line is the frame's own.
    this.element.style.blockSize = `${Math.max(0, this.rows.length * size - 1)}px`;
    const kept = new Set();
    for (let index = first; index < last; index += 1) {
      const row = this.rows[index];
      const key = keyOf(row);
      kept.add(key);
      let node = this.drawn.get(key);
      if (!node) {
        node = this.made(row);
        this.drawn.set(key, node);
        this.element.append(node);
      }
      this.fill(node, row, index);
    }
    for (const [key, node] of this.drawn)
      if (!kept.has(key)) {
        node.remove();
        this.drawn.delete(key);
      }
  }

  made(row) {
    const cell = (name, ...more) => el("div", { role: "gridcell", class: name }, ...more);
    const act = (name, title, text) =>
      this.may[name] &&
      el(
        "button",
        {
          type: "button",
          class: "small",
          "data-act": name,
          "aria-label": `${title} ${nameOf(row, this.tenant)}`,
          tabindex: "-1",
        },
        text,
      );
    const node = el(
      "div",
      { role: "row", class: "row", tabindex: "-1" },
      cell("session", el("a", { href: pageOf(row, this.tenant), tabindex: "-1" })),
      cell("state", el("span", { class: "dot", "aria-hidden": "true" }), el("span")),
      ...["generation", "idle", "memory", "cpu", "executions", "clients"].map((name) =>
        cell(`${name} number`),
      ),
      cell(
        "error",
        el("span"),
        el(
          "span",
          { class: "acts" },
          act("interrupt", "Interrupt", "Interrupt…"),
          act("kill", "Kill", "Kill…"),
        ),
      ),
    );
    node.dataset.key = keyOf(row);
    node.parts = Object.fromEntries([...node.children].map((one) => [one.classList[0], one]));
    return node;
  }

  fill(node, row, index) {
    const { parts } = node;
    const is = node.dataset.key === this.chosen;
    node.style.transform = `translateY(${index * this.size}px)`;
    node.setAttribute("aria-rowindex", index + 2);
    node.setAttribute("aria-selected", is);
    node.tabIndex = is || (this.chosen === null && index === 0) ? 0 : -1;
    const own = row.tenant === this.tenant;
    const name = parts.session.firstChild;
    say(name, own ? row.session : `${row.session} · ${row.tenant}`);
    name.title = `${row.session}, tenant ${row.tenant}, node ${row.node}, profile ${row.profile}`;
    parts.state.className = `state ${row.state}`;
    say(
      parts.state.lastChild,
      row.state === "busy" && row.cell?.seconds !== undefined
        ? `busy ${span(row.cell.seconds)}`
        : row.state,
    );
    say(parts.generation, count(row.generation));
    say(parts.idle, row.state === "busy" ? "–" : span(idleOf(row)));
    say(parts.memory, bytes(row.memory));
    say(
      parts.cpu,
      typeof row.usage?.cpu_seconds === "number" ? `${row.usage.cpu_seconds.toFixed(1)} s` : "–",
    );
    const stop = parts.error.querySelector("[data-act=interrupt]");
    if (stop) {
      stop.disabled = row.state !== "busy";
      stop.title = stop.disabled ? "Nothing runs in it" : "";
    }
    say(parts.executions, count(row.executions));
    say(parts.clients, count(row.clients));
    say(parts.error.firstChild, clip(errorOf(row), 200));
    parts.error.firstChild.title = straight(errorOf(row));
  }

  clicked(event) {
    const node = event.target.closest(".row");
    const row = node && this.rows.find((one) => keyOf(one) === node.dataset.key);
    if (!row || event.target.closest("button:disabled")) return;
    this.chosen = node.dataset.key;
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act) this.acts[act](row);
    else if (!event.target.closest("a") && !String(getSelection())) this.acts.open(row);
    soon(this.draw);
  }

  focused(event) {
    const node = event.target.closest(".row");
    if (node && this.chosen !== node.dataset.key) {
      this.chosen = node.dataset.key;
      soon(this.draw);
    }
  }
}
