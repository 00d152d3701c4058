// Light or dark: as the system has it, until somebody chooses.

const KEY = "broker.theme";
const root = document.documentElement;

export function begin() {
  set(localStorage.getItem(KEY) || "");
}

function set(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
}

export function isDark() {
  if (root.dataset.theme) return root.dataset.theme === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggle() {
  const theme = isDark() ? "light" : "dark";
  localStorage.setItem(KEY, theme);
  set(theme);
}
