// Light or dark: as the system has it, until somebody chooses.

const KEY = "broker.theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const heard = new EventTarget();

export function begin() {
  set(localStorage.getItem(KEY) || "");
  system.addEventListener("change", () => heard.dispatchEvent(new Event("change")));
}

// Call `then` whenever it may have become the other one.
export function onChange(then) {
  heard.addEventListener("change", then);
}

function set(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  heard.dispatchEvent(new Event("change"));
}

export function isDark() {
  if (root.dataset.theme) return root.dataset.theme === "dark";
  return system.matches;
}

export function toggle() {
  const theme = isDark() ? "light" : "dark";
  localStorage.setItem(KEY, theme);
  set(theme);
}
