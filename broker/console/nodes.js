// Nodes and pools at a glance, for the operator.

import { ask, get } from "./api.js";
import { confirmed } from "./ask.js";
import { button, el, note, say, straight } from "./dom.js";
import { Figures } from "./figures.js";
import { NONE, bytes, clip, count, plural, span } from "./format.js";
import { Spark } from "./spark.js";
import { explained } from "./words.js";

// Each so many looks, processes are measured: some milliseconds of the node's time each.
const MEASURED = 4;
const FEW = 128; // kernels; of more than these none is measured
const UNCOUNTED =
  `Control groups count what kernels use; without these they are measured by the node that is ` +
  `looked at, up to ${FEW} of them.`;

const NODES = ["Node", "Isolation", "Warm", "Bound", "Memory", "CPU", "Up", ""];

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
    this.cpu = new Spark("CPU", (value) => `${coresOf(value)} cores`);
    this.figures = new Figures();
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
        grid("Nodes", NODES, this.nodes, [2, 3, 4, 5, 6]),
        grid(
          "Pools",
          ["Pool", "Warm", "Starting", "Bound", "Waiting", "State"],
          this.pools,
          [1, 2, 3, 4],
        ),
      ),
    );
  }

  // Look again; returns the memory of kernels by their id, where it was measured.
  async look(signal) {
    const [{ nodes }, told] = await Promise.all([
      get("/v1/nodes", signal),
      get("/v1/pools", signal),
    ]);
    this.own = told.pools[0]?.node;
    const sum = (name) => nodes.reduce((total, one) => total + one[name], 0);
    const target = told.pools.reduce((total, one) => total + one.target, 0);
    this.warm.add(sum("warm"), `of ${count(Math.max(target, sum("warm")))}`);
    this.bound.add(sum("bound"), `of ${count(sum("capacity"))}`);
    this.figures.take(nodes, this.own);
    this.drawNodes(nodes);
    this.drawPools(told.pools);
    const memory = await this.measured(nodes, told.pools, signal);
    this.drawFigures(nodes);
    return memory;
  }

  // Where no control groups count what this node's kernels use, their processes are looked at.
  async measured(nodes, pools, signal) {
    const own = nodes.find((one) => one.node === this.own);
    const kernels = pools.reduce((total, one) => total + one.kernels.length, 0);
    if (!own || typeof own.memory === "number") return null;
    if (kernels > FEW) this.figures.forget(own.node);
    else if (this.looks++ % MEASURED === 0) {
      const told = await get("/v1/pools?memory=true", signal);
      const rows = told.pools.flatMap((pool) => pool.kernels);
      return this.figures.measure(own.node, rows);
    }
    return null;
  }

  sessions(rows) {
    const busy = rows.filter((row) => row.state === "busy").length;
    this.busy.add(busy, `of ${count(rows.length)}`);
  }

  drawFigures(nodes) {
    const { of } = this.figures;
    const [known, unknown] = [true, false].map((is) => nodes.filter((o) => of.has(o.node) === is));
    let about = "not counted";
    if (known.length && nodes.length > 1)
      about = `${unknown.length ? `${known.length} of ` : ""}${plural(nodes.length, "node")}`;
    else if (known.length) about = plural(known[0].warm + known[0].bound, "kernel");
    const listed = (some) => clip(some.map((one) => one.node).join(", "), 300);
    const what = [
      known.length && `Of the kernels of ${listed(known)}.`,
      unknown.length && `Not counted: ${listed(unknown)}. ${UNCOUNTED}`,
    ];
    const said = what.filter(Boolean).join("\n");
    this.memory.add(this.figures.total("memory", nodes), about, said);
    this.cpu.add(this.figures.total("cores", nodes), about, said);
    for (const one of nodes) {
      const { memory = null, cores = null } = of.get(one.node) ?? {};
      const row = this.rows.get(one.node);
      say(row.querySelector(".memory"), bytes(memory));
      say(row.querySelector(".cpu"), cores === null ? NONE : coresOf(cores));
    }
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
      const [name, state, warm, bound] = row.children;
      name.title = `${one.url}, version ${one.version}`;
      const pill = state.firstChild;
      pill.className = one.draining ? "pill warn" : "";
      pill.title = one.draining ? fate(one) : "";
      say(pill, one.draining ? drainingOf(one) : isolationOf(one));
      say(warm, count(one.warm));
      say(bound, `${count(one.bound)} / ${count(one.capacity)}`);
      say(row.querySelector(".up"), span(Date.now() / 1000 - one.started));
      this.drawAct(row.lastChild, one);
    }
  }

  // A node is drained by itself alone: another one's row leads to the console that can.
  drawAct(cell, one) {
    const own = one.node === this.own;
    const address = own ? null : addressOf(one);
    cell.firstChild.hidden = !own && address !== null;
    cell.firstChild.disabled = !own;
    cell.firstChild.title = own ? "" : `Only ${one.node} itself can: open its console`;
    cell.lastChild.hidden = address === null;
    if (address !== null) {
      cell.lastChild.href = address;
      cell.lastChild.title = straight(`${one.node} is drained in its own console, ${address}`);
    }
    say(cell.firstChild, one.draining ? "Undo" : "Drain…");
    say(cell.lastChild, one.draining ? "Undo there ↗" : "Drain there ↗");
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
      figure(NONE, "memory"),
      figure(NONE, "cpu"),
      figure("", "up"),
      el(
        "td",
        { class: "acts" },
        button("", act, { class: "small" }),
        el("a", { target: "_blank", rel: "noopener noreferrer" }),
      ),
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

function coresOf(value) {
  return value.toFixed(value < 1 ? 2 : 1);
}

// Where a node's console is; null for what is no address of one.
function addressOf({ url }) {
  if (!URL.canParse(`${url}/`)) return null;
  const { protocol, href } = new URL(`${url}/`);
  return /^https?:$/.test(protocol) ? href : null;
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
