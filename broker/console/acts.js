// What is done to a session once somebody has agreed to it.

import { ask, at, get, other } from "./api.js";
import { confirmed } from "./ask.js";
import { el, note, say } from "./dom.js";
import { clip, span } from "./format.js";
import { nameOf } from "./rows.js";
import { explained } from "./words.js";

const WIDE = 160; // characters of a line of code

// Ask, and interrupt what runs in a session; true if it was told to stop. What `row` does not know
// of it, the broker is asked for meanwhile.
export async function interrupted(row, me) {
  const name = nameOf(row, me.tenant);
  const session = { name: row.session, tenant: other(row.tenant, me) };
  try {
    const asking = get(at(session));
    if (row.state !== "busy") row = await asking;
    if (row.state !== "busy") {
      note(`${name}: nothing runs in it`);
      return false;
    }
    const shown = new Running(row);
    asking.then(
      (now) => shown.show(now),
      () => {}, // the broker says the same when it is told to interrupt
    );
    if (!(await confirmed(shown.question(name)))) return false;
    const told = await ask("POST", at(session, shown.path));
    note(told.interrupted ? `${name}: interrupted` : `${name}: told to stop`);
    return true;
  } catch (error) {
    note(`${name}: ${explained(error)}`, "error");
    return false;
  }
}

// What runs, as it is shown to whoever is asked, and no other cell than that.
class Running {
  constructor(row) {
    this.since = el("p");
    this.code = el("pre", { class: "code" });
    this.show(row);
  }

  show({ state, cell, code }) {
    this.cell = cell?.id ?? null;
    this.code.hidden = !code;
    say(this.code, clip(firstLine(code ?? ""), WIDE));
    if (state !== "busy") say(this.since, "Nothing runs in it any more.");
    else if (!cell) say(this.since, "It is not known what runs, and since when.");
    else {
      const begun = new Date(Date.now() - cell.seconds * 1000).toLocaleTimeString();
      say(this.since, `Its cell has run for ${span(cell.seconds)}, since ${begun}.`);
    }
  }

  question(name) {
    const text = [this.since, this.code, "The cell stops where it is. Variables stay."];
    return { title: `Interrupt session ${name}?`, text, act: "Interrupt" };
  }

  get path() {
    return this.cell === null ? "/interrupt" : `/interrupt?${query({ target: this.cell })}`;
  }
}

export function firstLine(code) {
  return code.trim().split("\n", 1)[0];
}

function query(fields) {
  return new URLSearchParams(fields);
}

// Ask, and end a session; true if it has ended.
export async function killed(row, me) {
  const name = nameOf(row, me.tenant);
  const usual = me.operator ? "killed by operator" : "killed by its owner";
  const reason = await confirmed({
    title: `Kill session ${name}?`,
    text: [
      "Its kernel ends, and its variables and files are gone. " +
        "What it has run stays in its notebook.",
    ],
    act: "Kill",
    field: { label: "Reason, which its next client is told", placeholder: usual },
  });
  if (reason === null) return false;
  const path = reason ? `?${query({ reason })}` : "";
  try {
    const told = await ask(
      "DELETE",
      at({ name: row.session, tenant: other(row.tenant, me) }, path),
    );
    note(`${name}: generation ${told.generation} ended`);
    return true;
  } catch (error) {
    note(explained(error), "error");
    return false;
  }
}
