// The console: a token, and the page that the address names.

import * as api from "./api.js";
import { button, el, say } from "./dom.js";
import * as keys from "./keys.js";
import { Overview } from "./overview.js";
import { SessionPage } from "./session.js";
import * as theme from "./theme.js";
import { explained } from "./words.js";

const main = document.getElementById("main");
const bar = document.getElementById("bar");
let me = null;
let page = null;
let turn = 0;

// A token that comes behind `#` has been sent nowhere; it leaves the address before anything is
// asked, and no history has it.
function taken() {
  const found = location.hash.match(/^#token=([^&]*)$/);
  if (!found && !location.search) return;
  if (found) api.keep(decoded(found[1]));
  history.replaceState(null, "", found ? "/" : `/${location.hash}`);
}

// Whoever writes an address may write anything.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function drawBar() {
  const who =
    me &&
    el(
      "span",
      {
        class: "who",
        title: me.expires ? `The token ends ${new Date(me.expires * 1000).toLocaleString()}` : "",
      },
      `${me.tenant} · ${me.operator ? "operator" : me.scopes.join(", ")}`,
    );
  bar.replaceChildren(
    el(
      "a",
      { href: "#/", class: "brand" },
      el("img", { src: "/console/icon.svg", alt: "", width: 20, height: 20 }),
      el("strong", {}, "kernel-broker"),
    ),
    el(
      "div",
      { class: "right" },
      who ?? "",
      button("?", keys.help, { class: "bare", title: "Keys (?)", "aria-label": "Keys" }),
      button("◐", theme.toggle, {
        class: "bare",
        title: "Light or dark (t)",
        "aria-label": "Light or dark",
        "data-theme-toggle": true,
      }),
      me ? button("Sign out", leave, { class: "small" }) : "",
    ),
  );
}

function leave() {
  api.forget();
  me = null;
  signIn();
}

function shut() {
  page?.close();
  page = null;
  keys.use([]);
}

function tell(trouble) {
  const said = main.querySelector(".sign-in .trouble");
  said.hidden = !trouble;
  say(said, trouble ?? "");
}

// Somebody may be typing into the form that is there.
function signIn(trouble) {
  if (main.querySelector(".sign-in")) return tell(trouble);
  shut();
  drawBar();
  document.title = "Sign in – kernel-broker";
  const said = el("p", { class: "trouble", role: "alert", hidden: !trouble }, trouble ?? "");
  const input = el("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "about-token",
  });
  const form = el(
    "form",
    { class: "sign-in" },
    el("h1", {}, "Sign in"),
    said,
    el("label", { for: "token" }, "Access token"),
    input,
    el("button", { type: "submit", class: "primary" }, "Sign in"),
    el(
      "p",
      { id: "about-token", class: "hint" },
      el("code", {}, "broker serve"),
      " prints one, and ",
      el("code", {}, "broker token create"),
      " makes one. It stays in this tab, until the tab is closed.",
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = input.value.trim();
    try {
      me = await api.ask("GET", "/v1/me", { given, quiet: true });
    } catch (error) {
      tell(explained(error));
      return input.select();
    }
    api.keep(given);
    route();
  });
  main.replaceChildren(form);
  input.focus();
  return undefined;
}

// What cannot be a session's name is asked of nobody: a browser gives `..` a meaning of its own.
function nowhere() {
  document.title = "No such session – kernel-broker";
  main.replaceChildren(
    el(
      "p",
      { class: "trouble", role: "alert" },
      "There is no such session. ",
      el("a", { href: "#/" }, "All sessions"),
    ),
  );
}

async function route(again = false) {
  const mine = (turn += 1);
  taken();
  if (!api.token()) return signIn();
  try {
    if (!me) {
      const opened = await api.ask("GET", "/v1/me", { quiet: true });
      if (again && main.querySelector(".sign-in input")?.value) return tell(null);
      me = opened;
    }
  } catch (error) {
    if (mine !== turn) return undefined;
    if (error.status) api.forget();
    else setTimeout(() => mine === turn && route(true), 3000);
    return signIn(explained(error));
  }
  if (mine !== turn) return undefined;
  shut();
  drawBar();
  const [, coded, query] = location.hash.match(/^#\/(?:s\/([^?]+))?(\?.*)?$/) ?? [];
  const name = coded && decoded(coded);
  if (coded && !api.isSessionName(name)) return nowhere();
  const tenant = new URLSearchParams(query).get("tenant");
  page = name ? new SessionPage(me, name, tenant) : new Overview(me, tenant);
  main.replaceChildren(page.element);
  scrollTo({ top: 0 });
  page.begin();
  return undefined;
}

theme.begin();
keys.begin();
drawBar();
api.onEnded((refused) => {
  api.forget();
  me = null;
  signIn(explained(refused));
});
document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  // Another token is another person.
  if (location.hash.startsWith("#token=")) me = null;
  route();
});
route();
