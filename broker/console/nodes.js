// Nodes and pools at a glance, for the operator.

import { ask, get } from "./api.js";
import { confirmed } from "./ask.js";
import { button, el, note } from "./dom.js";
import { bytes, clip, count, plural, span } from "./format.js";
import { Spark } from "./spark.js";
import { explained } from "./words.js";

const MEASURED = 4; // each so many looks, processes are measured: some milliseconds of the node's time each,
const FEW = 128; // kernels, and of more than these none is

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
    this.pools = el("tbody");
    this.element = el(
      "section",
      { "aria-label": "Nodes and pools", class: "nodes" },
      el("div", { class: "tiles" }, ...[this.warm, this.bound, this.busy, this.memory, this.cpu].map((one) => one.element)),
      el(
        "div",
        { class: "pair" },
        grid("Nodes", ["Node", "Isolation", "Warm", "Bound", "Up", ""], this.nodes, [2, 3, 4]),
        grid("Pools", ["Pool", "Warm", "Starting", "Bound", "Waiting", "State"], this.pools, [1, 2, 3, 4]),
      ),
    );
    this.memory.element.hidden = this.cpu.element.hidden = true;
  }

  // Look again; returns the memory of kernels by their id, where it was measured.
  async look(signal) {
    const [{ nodes }, told] = await Promise.all([get("/v1/nodes", signal), get("/v1/pools", signal)]);
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
    if (this.isFew === false && used.length) this.memory.add(used.reduce((total, row) => total + row.usage.memory, 0), `of ${plural(used.length, "session")}`);
  }

  measure(told) {
    const kernels = told.pools.flatMap((pool) => pool.kernels);
    const rows = [told.broker, ...told.zygotes, ...kernels];
    const measured = rows.filter((row) => typeof row.pss === "number");
    this.memory.add(measured.length ? measured.reduce((total, row) => total + row.pss, 0) : null, plural(rows.length, "process", "processes"));
    this.measureCpu(rows);
    return new Map(kernels.filter((row) => typeof row.pss === "number").map((row) => [row.kernel, row.pss]));
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

  drawNodes(nodes) {
    this.nodes.replaceChildren(
      ...nodes.map((one) =>
        el(
          "tr",
          { class: one.draining ? "draining" : "" },
          el("th", { scope: "row", title: `${one.url}, version ${one.version}` }, clip(one.node, 40)),
          el("td", {}, one.draining ? el("span", { class: "pill warn" }, "draining") : `${one.isolation}${one.mode ? ` (${one.mode})` : ""}`),
          figure(count(one.warm)),
          figure(`${count(one.bound)} / ${count(one.capacity)}`),
          figure(span(Date.now() / 1000 - one.started)),
          el("td", { class: "acts" }, one.draining ? button("Undo", () => this.drain(one, false), { class: "small" }) : button("Drain…", () => this.drain(one, true), { class: "small" })),
        ),
      ),
    );
  }

  drawPools(pools) {
    this.pools.replaceChildren(
      ...pools.map((one) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, one.profile),
          figure(`${count(one.warm)} / ${count(one.target)}`),
          figure(count(one.starting)),
          figure(`${count(one.bound)} / ${count(one.cap)}`),
          figure(count(one.waiting)),
          el("td", { title: one.error }, one.state === "ok" ? "ok" : el("span", { class: "pill bad" }, clip(one.error || one.state, 80))),
        ),
      ),
    );
  }

  async drain(one, begin) {
    const path = `/v1/nodes/${encodeURIComponent(one.node)}/drain`;
    if (begin) {
      const text = ["It takes no new sessions, lets what runs finish, and ends each session that runs nothing: their variables are gone.", "It can be undone; sessions that have ended do not come back."];
      if (!(await confirmed({ title: `Drain node ${one.node}?`, text, act: "Drain" }))) return;
    }
    try {
      const told = await ask(begin ? "POST" : "DELETE", path);
      note(begin ? `${one.node} drains: ${plural(told.sessions, "session")} left, ${told.busy} of them busy` : `${one.node} takes new sessions again`);
    } catch (error) {
      note(explained(error), "error");
    }
  }
}

function figure(text) {
  return el("td", { class: "number" }, text);
}

function grid(title, names, body, numbers) {
  const heads = names.map((name, at) => el("th", { scope: "col", class: numbers.includes(at) ? "number" : "" }, name));
  return el("div", { class: "scroll" }, el("table", { class: "plain-table" }, el("caption", {}, title), el("thead", {}, el("tr", {}, ...heads)), body));
}
