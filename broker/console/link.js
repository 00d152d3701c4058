// The WebSocket to a session: it watches until somebody wants to run something, comes back by
// itself with the last number it has seen, and hands each numbered event on once.

import { at, get, subprotocols } from "./api.js";
import { because, explained } from "./words.js";

const FIRST_WAIT = 500; // ms before it tries again, doubled up to
const LAST_WAIT = 10000;
const MOST_WAITING = 32; // messages; as many cells as a session has queued
const GONE = 4404;
const TOKEN_ENDED = 4401;
const ELSEWHERE = 4409;
const DRAINING = "the node takes no new sessions";

function ended({ reason }) {
  return `the session has ended${reason ? ` (${because(reason)})` : ""}`;
}

// A node that drains begins no session, and goes on with those that it serves; it says so to
// everybody.
async function isDraining() {
  try {
    const { reasons } = await (await fetch("/readyz", { cache: "no-store" })).json();
    return reasons.includes("draining");
  } catch {
    return false;
  }
}

export class Link {
  // `take` gets each event, `tell` each change of the connection: {state, text}.
  constructor(session, take, tell) {
    this.session = session;
    this.take = take;
    this.tell = tell;
    this.mode = "watch";
    this.seen = 0;
    this.wait = FIRST_WAIT;
    this.waiting = []; // messages for when it is open; they are refused where it never will be
    this.closed = false;
  }

  open() {
    clearTimeout(this.timer);
    if (this.closed) return;
    const address = new URL(at(this.session, "/ws"), location.href);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("after", this.seen);
    address.searchParams.set("mode", this.mode);
    const socket = new WebSocket(address, subprotocols());
    this.socket = socket;
    socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.tell({ state: "live", text: this.mode === "run" ? "live" : "watching" });
      for (const one of this.waiting.splice(0)) socket.send(JSON.stringify(one));
    };
    socket.onmessage = (frame) => this.socket === socket && this.got(JSON.parse(frame.data));
    socket.onclose = (event) => this.lost(socket, event);
  }

  got(event) {
    if (event.type === "session" && event.open !== undefined) {
      // What is told on attaching has the newest number, and is none of those that follow.
      if (event.missed) this.seen = Math.max(this.seen, event.missed[1]);
    } else if (event.seq !== undefined) {
      if (event.seq <= this.seen) return;
      this.seen = event.seq;
    }
    this.take(event);
  }

  async lost(socket, event) {
    if (this.closed || this.socket !== socket) return;
    if (event.code === GONE || event.code === 1000)
      return this.end(event.reason || "the session has ended");
    // Asking leads to the sign-in.
    if (event.code === TOKEN_ENDED) return get("/v1/me").catch(() => {});
    if (event.code === ELSEWHERE)
      this.tell({ state: "away", text: "another node serves the session now" });
    else
      this.tell({
        state: "away",
        text: `connecting again${event.reason ? `: ${event.reason}` : ""}`,
      });
    // A browser does not say why a handshake failed; asked over HTTP, the broker does.
    const why = event.code === 1006 ? await this.whyGone() : null;
    if (this.closed || this.socket !== socket) return; // `run` has opened another meanwhile
    if (why) return this.end(why);
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(LAST_WAIT, this.wait * 2);
  }

  // Resolve to why there is nothing to come back to, or null where there is.
  async whyGone() {
    try {
      const row = await get(at(this.session));
      if (row.state !== "closed" && row.clients !== null) return null;
      if (await this.wouldBegin()) return DRAINING;
      if (row.state === "closed") return ended(row);
      return this.mode === "run" ? null : `node ${row.node} serves the session`;
    } catch (error) {
      if (error.status === 404 && (await this.wouldBegin())) return DRAINING;
      return error.status === 0 ? null : explained(error);
    }
  }

  // Whether what waits would have a node that drains, and does not serve the session, begin it.
  async wouldBegin() {
    return this.waiting.length > 0 && (await isDraining());
  }

  end(text) {
    for (const one of this.waiting.splice(0)) this.refuse(one, text);
    this.tell({ state: "ended", text });
  }

  refuse(message, why) {
    this.take({
      type: "fault",
      id: message.id,
      code: "not_sent",
      message: `it was not sent: ${why}`,
    });
  }

  // Follow again what had ended.
  again() {
    if (this.socket?.readyState === WebSocket.CLOSED) this.open();
  }

  // From now on code may be run; without a kernel, this gets the session one.
  run() {
    if (this.mode === "run" && this.socket?.readyState <= WebSocket.OPEN) return;
    this.mode = "run";
    const old = this.socket;
    this.open();
    old?.close();
  }

  send(message) {
    this.run();
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
    else if (this.waiting.length < MOST_WAITING) this.waiting.push(message);
    else this.refuse(message, "too much waits for the connection already; send it again then");
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}
