// All sessions, and what serves them; looked at each few seconds, while somebody looks.

import { interrupted, killed } from "./acts.js";
import { get, ofTenant, other } from "./api.js";
import { button, el, note, say } from "./dom.js";
import { count } from "./format.js";
import * as keys from "./keys.js";
import { nodesOf } from "./nodes.js";
import { COLUMNS, Rows, keyOf, pageOf } from "./rows.js";
import { explained } from "./words.js";

const EACH = 3000; // ms between two looks, or
const REST = 10; // times as long as one has taken, if that is more
const SLOWEST = 30000;
const PAGE = 1000;
const MOST = 20000; // sessions

export class Overview {
  // `tenant` is whose sessions are shown, `*` for all.
  constructor(me, tenant) {
    this.me = me;
    this.rows = [];
    this.memory = new Map();
    this.sort = { key: "session", down: false };
    this.tenant = tenant || me.tenant;
    const may = (scope) => me.scopes.includes(scope);
    this.may = { interrupt: may("run"), kill: may("run") || may("admin"), open: true };
    this.nodes = me.operator ? nodesOf(me) : null;
    this.list = new Rows(
      {
        open: (row) => this.open(row),
        interrupt: (row) => this.interrupt(row),
        kill: (row) => this.kill(row),
      },
      this.may,
      me.tenant,
    );
    this.filter = el("input", {
      type: "search",
      id: "filter",
      placeholder: "Filter: name, state, error …",
      "aria-label": "Filter the sessions",
      spellcheck: "false",
      oninput: () => this.show(),
    });
    this.filter.addEventListener("keydown", (event) => this.filterKey(event));
    this.state = el(
      "select",
      { "aria-label": "Which sessions", onchange: () => this.look() },
      el("option", { value: "" }, "Live"),
      el("option", { value: "all" }, "With ended ones"),
    );
    this.told = el("span", { class: "told" });
    this.trouble = el("p", { class: "trouble", role: "alert", hidden: true });
    this.none = el("p", { class: "remark empty", hidden: true });
    this.columns = new Map(); // by column, its head
    this.heads = el(
      "div",
      { class: "row heads", role: "row" },
      ...COLUMNS.map((one) => this.head(one)),
    );
    this.element = el(
      "div",
      { class: "overview" },
      this.trouble,
      this.nodes?.element,
      el(
        "section",
        { "aria-label": "Sessions" },
        el(
          "div",
          { class: "toolbar" },
          el("h1", {}, "Sessions"),
          this.told,
          this.filter,
          this.state,
          me.operator && this.tenants(),
        ),
        el(
          "div",
          { class: "grid", role: "grid", "aria-label": "Sessions" },
          el("div", { role: "rowgroup", class: "sticky" }, this.heads),
          this.list.element,
        ),
        this.none,
      ),
    );
    this.element.addEventListener("changed", () => this.look());
    this.visible = () => document.visibilityState === "visible" && this.look();
  }

  begin() {
    document.title = "Sessions – kernel-broker";
    document.addEventListener("visibilitychange", this.visible);
    keys.use([
      { key: "/", does: "filter", act: () => this.filter.focus() },
      {
        key: "j",
        shown: "j k",
        does: "next session, the one before",
        act: () => this.list.move(1),
      },
      { key: "k", act: () => this.list.move(-1) },
      { key: "ArrowDown", act: () => this.list.move(1) },
      { key: "ArrowUp", act: () => this.list.move(-1) },
      { key: "PageDown", act: () => this.list.move(15) },
      { key: "PageUp", act: () => this.list.move(-15) },
      { key: "Enter", does: "open it", act: () => this.with((row) => this.open(row)) },
      {
        key: "i",
        does: "interrupt what runs in it, after a question",
        act: () => this.may.interrupt && this.with((row) => this.interrupt(row)),
      },
      {
        key: "x",
        does: "kill it, after a question",
        act: () => this.may.kill && this.with((row) => this.kill(row)),
      },
      { key: "r", does: "look again now", act: () => this.look() },
    ]);
    this.look();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.asking?.abort();
    this.list.close();
    document.removeEventListener("visibilitychange", this.visible);
  }

  with(act) {
    const row = this.list.current;
    if (row) act(row);
    else note("Choose a session with j and k first.");
  }

  filterKey(event) {
    if (event.key === "Escape") this.filter.value = "";
    if (event.key === "Escape" || event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      this.show();
      this.filter.blur();
      if (event.key !== "Escape") this.list.move(1);
    }
  }

  // Other tenants' sessions are the operator's to see; which there are, tokens tell.
  tenants() {
    const box = el("select", {
      "aria-label": "Tenant",
      onchange: () => {
        this.tenant = box.value;
        history.replaceState(null, "", `/#/${ofTenant(other(this.tenant, this.me))}`);
        this.look();
      },
    });
    const known = new Set([this.tenant]);
    const fill = (names) => {
      box.hidden = names.length < 2;
      box.replaceChildren(
        ...names.map((name) =>
          el("option", { value: name }, name === "*" ? "All tenants" : `Tenant ${name}`),
        ),
      );
      box.value = this.tenant;
    };
    const others = () => {
      const names = [...known].filter((name) => name !== this.me.tenant && name !== "*").sort();
      fill(
        names.length || this.tenant === "*" ? [this.me.tenant, "*", ...names] : [this.me.tenant],
      );
    };
    others();
    get("/v1/tokens").then(
      ({ tokens }) => {
        for (const one of tokens) known.add(one.tenant);
        others();
      },
      () => {},
    );
    return box;
  }

  head(column) {
    const one = button(column.title, () => {
      this.sort = {
        key: column.key,
        down: this.sort.key === column.key ? !this.sort.down : Boolean(column.number),
      };
      this.show();
    });
    const cell = el(
      "div",
      { role: "columnheader", class: `${column.key}${column.number ? " number" : ""}` },
      one,
    );
    this.columns.set(column, cell);
    return cell;
  }

  // Look again, and once more in a while; one look at a time.
  async look() {
    clearTimeout(this.timer);
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const began = performance.now();
    try {
      await Promise.all([this.measured(asking.signal), this.listed(asking.signal)]);
      if (asking.signal.aborted) return;
      this.trouble.hidden = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.trouble.hidden = false;
      say(this.trouble, explained(error));
    }
    if (!this.closed && document.visibilityState === "visible") {
      const pause = Math.min(SLOWEST, Math.max(EACH, REST * (performance.now() - began)));
      this.timer = setTimeout(() => this.look(), pause);
    }
  }

  // Neither waits for the other: measuring takes its time.
  async measured(signal) {
    const memory = await this.nodes?.look(signal);
    if (!memory || signal.aborted) return;
    this.memory = memory;
    this.show();
  }

  async listed(signal) {
    const rows = await this.sessions(signal);
    if (signal.aborted) return;
    this.rows = rows;
    this.nodes?.sessions(rows.filter((row) => row.state !== "closed"));
    this.show();
  }

  async sessions(signal) {
    const rows = [];
    let after = "";
    do {
      const query = new URLSearchParams({ limit: PAGE });
      if (after) query.set("after", after);
      if (this.state.value) query.set("state", this.state.value);
      if (this.tenant !== this.me.tenant) query.set("tenant", this.tenant);
      const told = await get(`/v1/sessions?${query}`, signal);
      rows.push(...told.sessions);
      after = told.next;
    } while (after && rows.length < MOST);
    return rows;
  }

  show() {
    for (const row of this.rows) row.memory = row.usage?.memory ?? this.memory.get(row.kernel);
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? this.rows.filter((row) => matches(row, words)) : [...this.rows];
    const column = COLUMNS.find((one) => one.key === this.sort.key);
    const sign = this.sort.down ? -1 : 1;
    const byName = new Intl.Collator("en", { numeric: true }).compare;
    found.sort((a, b) => {
      const [left, right] = [column.of(a), column.of(b)];
      const order = column.number ? left - right : byName(left, right);
      return sign * order || byName(keyOf(a), keyOf(b));
    });
    for (const [one, cell] of this.columns)
      cell.setAttribute(
        "aria-sort",
        one === column ? (this.sort.down ? "descending" : "ascending") : "none",
      );
    this.element.querySelector(".grid").setAttribute("aria-rowcount", found.length + 1);
    this.element
      .querySelector(".grid")
      .classList.toggle("no-cpu", !this.rows.some((row) => row.usage));
    this.list.set(found);
    say(
      this.told,
      found.length === this.rows.length
        ? count(found.length)
        : `${count(found.length)} of ${count(this.rows.length)}`,
    );
    this.none.hidden = found.length > 0;
    say(
      this.none,
      this.rows.length
        ? "No session matches the filter."
        : this.me.scopes.includes("run")
          ? "No sessions yet. The first one: broker run -s demo 'x = 20'"
          : "No sessions that this token may see.",
    );
  }

  open(row) {
    location.hash = pageOf(row, this.me.tenant);
  }

  async interrupt(row) {
    if (await interrupted(row, this.me)) this.look();
  }

  async kill(row) {
    if (await killed(row, this.me)) this.look();
  }
}

function matches(row, words) {
  const { session, tenant, state, node, profile, reason, last_error: error } = row;
  const text = [session, tenant, state, node, profile, reason, error].join(" ").toLowerCase();
  return words.every((word) =>
    word.startsWith("-") && word.length > 1 ? !text.includes(word.slice(1)) : text.includes(word),
  );
}
