// Nodes and pools at a glance, for the operator.

import { ask, get } from "./api.js";
import { confirmed } from "./ask.js";
import { button, el, note, say } from "./dom.js";
import { bytes, clip, count, plural, span } from "./format.js";
import { Spark } from "./spark.js";
import { explained } from "./words.js";

// Each so many looks, processes are measured: some milliseconds of the node's time each.
const MEASURED = 4;
const FEW = 128; // kernels; of more than these none is measured

let kept = null;

// The same one for as long as the same token is used: its lines go on while a session is looked at.
export function nodesOf(me) {
  if (kept?.me !== me) kept = new Nodes(me);
  return kept;
}

class Nodes {
  constructor(me) {
    this.me = me;
    this.looks = 0;
    this.warm = new Spark("Warm", count, 4);
    this.bound = new Spark("Bound", count, 4);
    this.busy = new Spark("Busy", count, 4);
    this.memory = new Spark("Memory", bytes, 1 << 20);
    this.cpu = new Spark("CPU", (value) => `${value.toFixed(value < 1 ? 2 : 1)} cores`);
    this.nodes = el("tbody");
    this.rows = new Map(); // of nodes, by name
    this.pools = el("tbody");
    this.element = el(
      "section",
      { "aria-label": "Nodes and pools", class: "nodes" },
      el(
        "div",
        { class: "tiles" },
        ...[this.warm, this.bound, this.busy, this.memory, this.cpu].map((one) => one.element),
      ),
      el(
        "div",
        { class: "pair" },
        grid("Nodes", ["Node", "Isolation", "Warm", "Bound", "Up", ""], this.nodes, [2, 3, 4]),
        grid(
          "Pools",
          ["Pool", "Warm", "Starting", "Bound", "Waiting", "State"],
          this.pools,
          [1, 2, 3, 4],
        ),
      ),
    );
    this.memory.element.hidden = this.cpu.element.hidden = true;
  }

  // Look again; returns the memory of kernels by their id, where it was measured.
  async look(signal) {
    const [{ nodes }, told] = await Promise.all([
      get("/v1/nodes", signal),
      get("/v1/pools", signal),
    ]);
    this.isFew = told.pools.reduce((total, one) => total + one.kernels.length, 0) <= FEW;
    const measures = this.isFew && this.looks % MEASURED === 0;
    this.looks += 1;
    const sum = (name) => nodes.reduce((total, one) => total + one[name], 0);
    const target = told.pools.reduce((total, one) => total + one.target, 0);
    this.warm.add(sum("warm"), `of ${count(Math.max(target, sum("warm")))}`);
    this.bound.add(sum("bound"), `of ${count(sum("capacity"))}`);
    this.drawNodes(nodes);
    this.drawPools(told.pools);
    return measures ? this.measure(await get("/v1/pools?memory=true", signal)) : null;
  }

  sessions(rows) {
    const busy = rows.filter((row) => row.state === "busy").length;
    this.busy.add(busy, `of ${count(rows.length)}`);
    const used = rows.filter((row) => row.usage?.memory);
    if (this.isFew === false && used.length)
      this.memory.add(
        used.reduce((total, row) => total + row.usage.memory, 0),
        `of ${plural(used.length, "session")}`,
      );
  }

  measure(told) {
    const kernels = told.pools.flatMap((pool) => pool.kernels);
    const rows = [told.broker, ...told.zygotes, ...kernels];
    const measured = rows.filter((row) => typeof row.pss === "number");
    this.memory.add(
      measured.length ? measured.reduce((total, row) => total + row.pss, 0) : null,
      plural(rows.length, "process", "processes"),
    );
    this.measureCpu(rows);
    return new Map(
      kernels.filter((row) => typeof row.pss === "number").map((row) => [row.kernel, row.pss]),
    );
  }

  measureCpu(rows) {
    const now = performance.now() / 1000;
    const spent = new Map();
    for (const row of rows) {
      const used = row.cpu_seconds ?? row.cpu;
      if (typeof used === "number") spent.set(row.pid, used);
    }
    let used = 0;
    for (const [pid, total] of spent) used += Math.max(0, total - (this.spent?.get(pid) ?? total));
    if (this.spent && spent.size) this.cpu.add(used / (now - this.measuredAt));
    this.spent = spent;
    this.measuredAt = now;
  }

  // In place, so that a button that has the focus keeps it.
  drawNodes(nodes) {
    const names = new Set(nodes.map((one) => one.node));
    for (const [name, row] of this.rows)
      if (!names.has(name) && this.rows.delete(name)) row.remove();
    for (const one of nodes) {
      let row = this.rows.get(one.node);
      if (!row) this.rows.set(one.node, (row = this.madeRow(one)));
      if (!row.parentNode) this.nodes.append(row);
      row.one = one;
      const [name, state, warm, bound, up, acts] = row.children;
      name.title = `${one.url}, version ${one.version}`;
      const pill = state.firstChild;
      pill.className = one.draining ? "pill warn" : "";
      pill.title = one.draining ? fate(one) : "";
      say(pill, one.draining ? drainingOf(one) : isolationOf(one));
      say(warm, count(one.warm));
      say(bound, `${count(one.bound)} / ${count(one.capacity)}`);
      say(up, span(Date.now() / 1000 - one.started));
      say(acts.firstChild, one.draining ? "Undo" : "Drain…");
    }
  }

  madeRow(one) {
    const act = () => this.drain(row.one, !row.one.draining);
    const row = el(
      "tr",
      {},
      el("th", { scope: "row" }, clip(one.node, 40)),
      el("td", {}, el("span")),
      figure("", "warm"),
      figure(""),
      figure("", "up"),
      el("td", { class: "acts" }, button("", act, { class: "small" })),
    );
    return row;
  }

  drawPools(pools) {
    this.pools.replaceChildren(
      ...pools.map((one) =>
        el(
          "tr",
          {},
          el("th", { scope: "row", title: one.profile }, one.profile),
          figure(`${count(one.warm)} / ${count(one.target)}`, "warm"),
          figure(count(one.starting), "starting"),
          figure(`${count(one.bound)} / ${count(one.cap)}`),
          figure(count(one.waiting), "waiting"),
          el(
            "td",
            { title: one.error },
            one.state === "ok"
              ? "ok"
              : el("span", { class: "pill bad" }, clip(one.error || one.state, 80)),
          ),
        ),
      ),
    );
  }

  async drain(one, begin) {
    const path = `/v1/nodes/${encodeURIComponent(one.node)}/drain`;
    if (begin && !(await confirmed(asked(one)))) return;
    try {
      const told = await ask(begin ? "POST" : "DELETE", path);
      note(`${one.node} ${begin ? leftOf(told) : "takes new sessions again"}`);
    } catch (error) {
      note(explained(error), "error");
    }
    this.element.dispatchEvent(new Event("changed", { bubbles: true }));
  }
}

function asked(one) {
  return {
    title: `Drain node ${one.node}?`,
    text: [
      one.bound ? `It serves ${plural(one.bound, "session")}.` : "It serves no session.",
      "It takes no new ones, lets what runs finish, and ends each session that runs nothing: " +
        "their variables are gone.",
      "It can be undone; sessions that have ended do not come back.",
    ],
    act: "Drain",
  };
}

function leftOf({ sessions, busy }) {
  if (!sessions) return "is drained: it serves nobody";
  return `drains: ${plural(sessions, "session")} left, ${busy} of them busy`;
}

function drainingOf(one) {
  return one.bound ? `draining, ${count(one.bound)} left` : "drained";
}

// What becomes of a node that drains.
function fate(one) {
  if (!one.bound) return "It serves nobody, and takes no new sessions: it may be stopped.";
  return "It takes no new sessions, and ends each of those left once nothing runs in it.";
}

function isolationOf(one) {
  return one.mode ? `${one.isolation} (${one.mode})` : one.isolation;
}

function figure(text, name = "") {
  return el("td", { class: `number ${name}` }, text);
}

function grid(title, names, body, numbers) {
  const heads = names.map((name, at) => {
    const number = numbers.includes(at) ? "number" : "";
    return el("th", { scope: "col", class: `${number} ${name.toLowerCase()}` }, name);
  });
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "plain-table" },
      el("caption", {}, title),
      el("thead", {}, el("tr", {}, ...heads)),
      body,
    ),
  );
}
