// Numbers as people read them.

export const NONE = "–";
const SIZES = ["B", "KB", "MB", "GB", "TB"];

export function bytes(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 9.95 && unit > 1 ? value.toFixed(1) : Math.round(value)} ${SIZES[unit]}`;
}

export function seconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  if (value < 0.9995) return `${Math.max(0, Math.round(value * 1000))} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  return span(value);
}

function parts(whole, size, name, small, smaller) {
  const rest = Math.floor((whole % size) / small);
  return `${Math.floor(whole / size)} ${name}${rest ? ` ${rest} ${smaller}` : ""}`;
}

export function span(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  const whole = Math.max(0, Math.floor(value));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return parts(whole, 3600, "h", 60, "min");
  return parts(whole, 86400, "d", 3600, "h");
}

export function count(value) {
  return typeof value === "number" ? value.toLocaleString("en") : NONE;
}

export function time(unix) {
  return unix ? new Date(unix * 1000).toLocaleString() : NONE;
}

export function clip(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

export function plural(number, word, many = `${word}s`) {
  return `${count(number)} ${number === 1 ? word : many}`;
}
