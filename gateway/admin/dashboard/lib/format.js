// Numbers and times as people read them; the same digits as the command line writes.

const MISSING = "–";

/** Requests a second: three digits, as many as anybody reads. */
export function rate(value) {
  if (value === null || value === undefined) return MISSING;
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function percent(value) {
  return value === null || value === undefined
    ? MISSING
    : `${value.toFixed(value < 0.1 && value > 0 ? 2 : 1)} %`;
}

export function millis(value) {
  if (value === null || value === undefined) return MISSING;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

/** How much likelier something is: three digits, never an exponent. */
export function odds(value) {
  if (value > 1e6) return "over 1,000,000";
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value >= 0.01 ? String(Number(value.toPrecision(3))) : "0";
}

export function count(value) {
  return (value ?? 0).toLocaleString("en");
}

/** Milliseconds as 8s, 3m12s, 2h05m, 3d04h. */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const two = (value) => String(value).padStart(2, "0");
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit));
  if (days) return `${days}d${two(hours % 24)}h`;
  if (hours) return `${hours}h${two(minutes % 60)}m`;
  return minutes ? `${minutes}m${two(seconds % 60)}s` : `${seconds}s`;
}

/** How long ago, in the largest unit that says it: "12 s ago", "3 min ago". */
export function ago(text, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(text)) / 1000));
  for (const [unit, size] of [
    ["d", 86_400],
    ["h", 3600],
    ["min", 60],
  ]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };

/** An RFC 3339 time here and now: 14:03:22, with the day if it is another. */
export function time(text) {
  if (!text) return MISSING;
  const at = new Date(text);
  const clock = at.toLocaleTimeString("en-GB", CLOCK);
  if (at.toDateString() === new Date().toDateString()) return clock;
  const day = [at.getFullYear(), at.getMonth() + 1, at.getDate()]
    .map((part) => String(part).padStart(2, "0"))
    .join("-");
  return `${day} ${clock}`;
}

export function utc(text) {
  return text
    ? `${new Date(text)
        .toISOString()
        .replace("T", " ")
        .replace(/\.\d+Z$/, "")} UTC`
    : "";
}

/** The time of day for an axis whose whole length is `spanMs`. */
export function axisTime(at, spanMs) {
  const options = spanMs <= 600_000 ? CLOCK : { hour: "2-digit", minute: "2-digit", hour12: false };
  return new Date(at).toLocaleTimeString("en-GB", options);
}
