// What went wrong, in words, with the next step.

const STEPS = {
  unauthorized:
    "Sign in with a token that the broker knows: `broker serve` prints one, " +
    "and `broker token create` makes one.",
  forbidden: "Sign in with a token that has the scope.",
  unknown_session:
    "It has ended, or it is another tenant's. The list shows those that this token may see.",
  unknown_node: "The list of nodes is renewed each few seconds; choose again.",
  not_running: "It had ended before the broker was told to stop it.",
  queue_full: "Wait until what is queued has run, or interrupt it.",
  quota: "The tenant has as much as it may have; end a session, or raise its bound in broker.toml.",
  capacity: "The node is full. End a session that nobody needs, or try again in a moment.",
  draining: "The node takes no new sessions. Undo the drain, or use another node.",
  store_unavailable: "Redis does not answer. Sessions live on, and it is tried again.",
  no_such_file: "It may have been removed meanwhile; the list of files is read again.",
  file_exists: "Choose another name, or let it be replaced.",
  too_large: "Send it in smaller pieces.",
  internal: "The broker's log has the details.",
};

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message || (status ? `HTTP ${status}` : "The broker does not answer."));
    this.status = status;
    this.code = error?.code || (status ? "internal" : "unreachable");
    this.retryAfter = error?.retry_after;
    this.url = error?.url;
  }
}

// One sentence for what happened, and one for what to do.
export function explained(error) {
  if (!(error instanceof Refused))
    return `The page has failed: ${error?.message || error}. Reload it.`;
  if (error.code === "unreachable")
    return (
      `The broker does not answer at ${location.host}. ` +
      "It is asked again; look whether `broker serve` runs."
    );
  let step = STEPS[error.code] || "";
  if (error.code === "busy")
    step = error.url
      ? `Another node serves it: open ${error.url}/ there.`
      : "Try again in a moment.";
  if (error.retryAfter) step += ` Try again in ${Math.ceil(error.retryAfter)} s.`;
  const said = error.message.trim();
  const what = said.charAt(0).toUpperCase() + said.slice(1);
  return `${what}${/[.!?]$/.test(what) ? "" : "."} ${step}`.trim();
}

const REASONS = {
  oom: "it was over its memory",
  cpu: "it was over its CPU time",
  timeout: "it was over its time",
  idle: "nobody had used it",
  lifetime: "its time was up",
  closed: "a client closed it",
  restart: "it was restarted",
  shutdown: "the broker was shut down",
  drained: "its node was drained",
  node_lost: "its node was lost",
  quota: "the tenant's CPU time was used up",
  killed: "it went on after an interrupt",
  done: "it was for one execution",
};

export function because(reason) {
  if (!reason) return "";
  return Object.hasOwn(REASONS, reason) ? `${reason}: ${REASONS[reason]}` : reason;
}
