// What is asked of the broker. The token goes in a header, and nowhere else; there are no cookies,
// so no other site can have this browser ask anything.

import { Refused } from "./words.js";

const KEY = "broker.token";
let ended = () => {};

export function token() {
  return sessionStorage.getItem(KEY) || "";
}

export function keep(text) {
  sessionStorage.setItem(KEY, text);
}

export function forget() {
  sessionStorage.removeItem(KEY);
}

// Call `then` when the broker takes the token no more.
export function onEnded(then) {
  ended = then;
}

export async function fetched(method, path, { body, type, signal, given, quiet } = {}) {
  const headers = { Authorization: `Bearer ${given ?? token()}` };
  if (type) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body,
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0);
  }
  if (answer.ok) return answer;
  let told;
  try {
    told = (await answer.json()).error;
  } catch {
    told = undefined;
  }
  const refused = new Refused(answer.status, told);
  if (answer.status === 401 && !quiet) ended(refused);
  throw refused;
}

export async function ask(method, path, options = {}) {
  return (await fetched(method, path, options)).json();
}

export function get(path, signal) {
  return ask("GET", path, { signal });
}

// The broker's own rule, without what a browser would take for a way to elsewhere.
export function isSessionName(text) {
  return /^[\w.:@-]{1,128}$/.test(text) && !/^\.\.?$/.test(text);
}

// `session` is a name, or {name, tenant}, where the tenant is null for one's own.
export function at(session, rest = "") {
  const { name, tenant } = typeof session === "string" ? { name: session } : session;
  const whose = tenant
    ? `${rest.includes("?") ? "&" : "?"}tenant=${encodeURIComponent(tenant)}`
    : "";
  return `/v1/sessions/${encodeURIComponent(name)}${rest}${whose}`;
}

// A tenant, or null where that is one's own.
export function other(tenant, me) {
  return tenant && tenant !== me.tenant ? tenant : null;
}

// What follows `#/`, or a session's name there, where it is about another tenant.
export function ofTenant(tenant) {
  return tenant ? `?tenant=${encodeURIComponent(tenant)}` : "";
}

// Of a path, each segment by itself: its slashes stand as they are.
export function filePath(session, row) {
  const path = row.encoded ?? row.path.split("/").map(encodeURIComponent).join("/");
  return at(session, `/files/${path}`);
}

export function subprotocols() {
  const bytes = new TextEncoder().encode(token());
  const packed = btoa(String.fromCharCode(...bytes));
  const text = packed.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["broker.v1.json", `broker.token.${text}`];
}

// Save what a path answers with as a file; it is never shown by the browser.
export async function download(path, name) {
  const blob = await (await fetched("GET", path)).blob();
  save(blob, name);
}

export function save(content, name) {
  const blob = new Blob([content], { type: "application/octet-stream" });
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replaceAll(/[^\w.@:-]+/g, "_") || "file";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
