// Numbers, times and states as people read them.

import { h } from "./dom.js";

const GOOD = ["healthy", "completed", "production", "closed", "advance"];
const BAD = ["unhealthy", "failed", "rolled back", "open", "abort"];
const WARN = ["paused", "hold", "half open", "unknown", "draining"];

/** A state as a word, coloured if it needs a look. */
export function word(state) {
  const text = String(state).toLowerCase().replaceAll("_", " ");
  const tone = GOOD.includes(text) ? "good" : BAD.includes(text) ? "bad" : WARN.includes(text) ? "warn" : null;
  return h("span", { class: tone }, text);
}

/** Milliseconds as 8s, 3m12s, 2h05m. */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const two = (value) => String(value).padStart(2, "0");
  if (minutes >= 60) return `${Math.floor(minutes / 60)}h${two(minutes % 60)}m`;
  return minutes ? `${minutes}m${two(seconds % 60)}s` : `${seconds}s`;
}

/** An RFC 3339 time here and now: 14:03:22, with the day if it is another. */
export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return at.toDateString() === new Date().toDateString() ? clock : `${at.toLocaleDateString()} ${clock}`;
}

/** A time as an element that machines read too. */
export function when(text) {
  return h("time", { datetime: text, class: "number" }, time(text));
}

/** A table; rows are arrays of cells, a cell is text or an element. */
export function table(columns, rows, keyOf, empty) {
  if (!rows.length) return h("p", { class: "card quiet" }, empty);
  return h(
    "table", { class: "stack" },
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column)))),
    h("tbody", {}, rows.map((row, index) => h(
      "tr", { "data-key": keyOf(index) },
      row.map((cell, at) => h("td", { "data-label": columns[at], class: at === row.length - 1 ? "full" : null }, cell ?? "–")),
    ))),
  );
}
