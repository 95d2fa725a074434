// States and verdicts in the command line's words, each with its tone: colour never stands alone.

import { h } from "./dom.js";
import { ago, time, utc } from "./format.js";

export const OPEN = ["pending", "testing", "rolling", "paused"];
const RANKS = ["viewer", "operator", "deployer", "admin"];
const TONES = {
  good: ["healthy", "completed", "production", "closed", "passing so far", "allowed", "passed", "valid"],
  bad: ["unhealthy", "failed", "rolled back", "open", "rolls back", "breaker open", "refused"],
  warn: ["paused", "half open", "unknown", "draining", "waits for a person", "asks the old version"],
};
const VERDICTS = {
  advance: "passing so far",
  hold: "not decided yet",
  ask: "asks the old version",
  cleared: "cleared",
  draw: "next block of the ask",
  pause: "waits for a person",
  abort: "rolls back",
};
const MOVES = {
  start: "started",
  wait: "waits for a gateway",
  gate: "checks passed",
  step: "next share",
  set_percent: "share set",
  promote: "promoted",
  resume: "resumed",
  rollback: "rolled back",
  complete: "completed",
  fail: "failed",
};

/** Whether a role may do what `needed` may. */
export function may(role, needed) {
  return RANKS.indexOf(role) >= RANKS.indexOf(needed);
}

/** A verdict of the judge, or somebody's move, in words. */
export function verdictWord(verdict) {
  return VERDICTS[verdict] ?? MOVES[verdict] ?? String(verdict).replaceAll("_", " ");
}

/** A sentence of the judge with its large numbers in groups of three, and no break before a unit. */
export function readable(text) {
  return text
    .replace(/(?<![\w.])\d{5,}(?![\w.]*[\w])/g, (digits) => Number(digits).toLocaleString("en"))
    .replace(/(\d) %/g, "$1\u00a0%");
}

/** Why a rollout stands where it stands; the judge's own word for it replaced by ours. */
export function why(rollout) {
  const said = rollout.summary || rollout.errorMessage || "";
  return readable(said).replace(
    /(^|; )(advance|hold|ask|cleared|draw|pause|abort): /,
    (_, before, verdict) => {
      const word = verdictWord(verdict);
      return `${before}${before ? word : word[0].toUpperCase() + word.slice(1)}: `;
    },
  );
}

export function toneOf(text) {
  return Object.keys(TONES).find((tone) => TONES[tone].includes(text)) ?? null;
}

/** A state as a word with a mark, coloured if it needs a look. */
export function state(value) {
  const text = String(value).toLowerCase().replaceAll("_", " ");
  const tone = toneOf(text);
  return h("span", { class: `state ${tone ?? "plain"}` }, text);
}

/** A version's health in one word: why it gets nothing, if it does not. */
export function health(version) {
  if (version.draining && !version.drained) return "draining";
  if (version.circuitState === "OPEN") return "breaker open";
  return version.healthStatus;
}

/** A time as an element: local, UTC on hover. */
export function when(text) {
  return text ? h("time", { datetime: text, title: utc(text), class: "number" }, time(text)) : "–";
}

/** The same as an age: "12 s ago". */
export function since(text) {
  return text ? h("time", { datetime: text, title: `${time(text)} here, ${utc(text)}` }, ago(text)) : "–";
}

/** The first part of a UUID; other ids are whole. */
export function short(id) {
  return /^[0-9a-f]{8}-/.test(id) ? id.slice(0, 8) : id;
}
