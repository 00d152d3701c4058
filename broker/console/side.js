// What stands beside the notebook: variables, files, and the session's own figures.

import { at, get } from "./api.js";
import { button, el } from "./dom.js";
import { Files } from "./files.js";
import { bytes, count, seconds, span, time } from "./format.js";
import { Variables } from "./variables.js";
import { because, explained } from "./words.js";

class About {
  constructor(session) {
    this.session = session;
    this.element = el("div", { class: "panel about" });
  }

  async read() {
    try {
      this.draw(await get(at(this.session, "?errors=true")));
    } catch (error) {
      this.element.replaceChildren(el("p", { class: "remark" }, explained(error)));
    }
  }

  draw(row) {
    const { usage, limits } = row;
    const facts = [
      ["State", row.state],
      ["Generation", count(row.generation)],
      ["Tenant", row.tenant],
      ["Profile", row.profile],
      ["Node", row.node],
      ["Process", row.pid ?? "–"],
      ["Made", time(row.created)],
      ["Last used", time(row.last_used)],
      ["Ends, if unused", row.expires ? time(row.expires) : "never"],
      ["Cells run", count(row.executions)],
      ["Waiting", count(row.queued)],
      [
        "Clients",
        row.attached ? `${row.attached.run} run, ${row.attached.watch} watch` : count(row.clients),
      ],
      ["Last end", because(row.reason) || "–"],
    ];
    if (usage)
      facts.push(
        ["Memory", bytes(usage.memory)],
        ["Peak memory", bytes(usage.memory_peak)],
        ["CPU", seconds(usage.cpu_seconds)],
        ["Processes", count(usage.processes)],
      );
    if (row.workspace_bytes !== undefined && row.workspace_bytes !== null)
      facts.push(["Files", bytes(row.workspace_bytes)]);
    this.element.replaceChildren(list(facts));
    if (limits)
      this.element.append(el("h3", {}, "Bounds"), list(Object.entries(limits).map(bound)));
    this.list("Generations", row.history, (one) => {
      const end = one.ended ? `${because(one.reason) || "ended"}, ${time(one.ended)}` : "lives";
      return `${one.generation}: ${end}`;
    });
    this.list(
      "Last errors",
      row.errors,
      (one) => `${span(Date.now() / 1000 - one.at)} ago: ${one.error}`,
    );
  }

  list(title, rows, told) {
    if (rows?.length)
      this.element.append(
        el("h3", {}, title),
        el("ul", {}, ...rows.toReversed().map((one) => el("li", {}, told(one)))),
      );
  }
}

function list(facts) {
  return el(
    "dl",
    {},
    ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

// What is bounded, and by how much, in its unit.
function bound([name, value]) {
  const words = name.replaceAll("_", " ");
  const title = words.charAt(0).toUpperCase() + words.slice(1).replace(/ bytes$/, "");
  if (!value) return [title.replace("Cpu", "CPU"), "no bound"];
  if (/bytes|memory/.test(name)) return [title, bytes(value)];
  if (/time$|timeout/.test(name)) return [title.replace("Cpu", "CPU"), span(value)];
  if (name === "cpu") return ["Processors", count(value)];
  return [title, count(value)];
}

export class Side {
  constructor(session, mayRun) {
    this.panels = {
      ...(mayRun && { Variables: new Variables(session) }),
      Files: new Files(session, mayRun),
      About: new About(session),
    };
    this.tabs = Object.keys(this.panels).map((name) =>
      button(name, () => this.open(name), {
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": "side-panel",
        tabindex: "-1",
      }),
    );
    const bar = el(
      "div",
      {
        class: "tabs",
        role: "tablist",
        "aria-label": "Beside the notebook",
        onkeydown: (event) => this.key(event),
      },
      ...this.tabs,
    );
    this.body = el("div", { id: "side-panel", role: "tabpanel" });
    this.element = el(
      "aside",
      { class: "side", "aria-label": "Variables, files and figures" },
      bar,
      this.body,
    );
    this.open(Object.keys(this.panels)[0]);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const now = this.tabs.indexOf(document.activeElement);
    const next = this.tabs[(now + step + this.tabs.length) % this.tabs.length];
    next.click();
    next.focus();
  }

  open(name) {
    this.now = name;
    for (const tab of this.tabs) {
      const is = tab.textContent === name;
      tab.setAttribute("aria-selected", is);
      tab.tabIndex = is ? 0 : -1;
    }
    this.body.setAttribute("aria-labelledby", `tab-${name}`);
    this.body.replaceChildren(this.panels[name].element);
    this.read();
  }

  read() {
    this.panels[this.now].read();
  }
}
