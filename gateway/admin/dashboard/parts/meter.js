// The judge's statistic now, on a log scale from "no difference" to where it has its effect.

import { h } from "../lib/dom.js";
import { odds } from "../lib/format.js";

const LIMIT_AT = 86; // percent of the width: what lies beyond the limit is drawn too
const EFFECTS = {
  shift: ["waits for a person", "onShift"],
  latency: ["waits for a person", "onLatency"],
  suspicion: ["asks the old version"],
  dead: ["asks the old version"],
  asks: ["asks the old version"],
};

/** What happens at the limit of the test that a verdict is about. */
export function effectOf(gate, config = {}) {
  const [effect, setting] = EFFECTS[gate] ?? ["rolls back", "onBreach"];
  if (config.dryRun) return "would roll back";
  if (setting === "onBreach") return config.onBreach === "pause" ? "pauses" : effect;
  return setting && config[setting] === "abort" ? "rolls back" : effect;
}

/** Where a statistic stands on the meter, in percent of its width. */
export function placeOf(statistic, limit) {
  if (limit <= 1) return 0;
  return Math.min(100, (LIMIT_AT * Math.log(Math.max(1, statistic))) / Math.log(limit));
}

/** seen: {statistic, limit, gate, advanceBelow}. */
export function meter(seen, config) {
  const effect = effectOf(seen.gate, config);
  const place = placeOf(seen.statistic, seen.limit);
  const passes = placeOf(seen.advanceBelow, seen.limit);
  const isOver = seen.statistic >= seen.limit;
  const text = `${odds(seen.statistic)} to 1 that the new version is worse; ${effect} at ${odds(seen.limit)} to 1`;
  const at = (percent) => `${percent.toFixed(2)}%`;
  const anchor = place > 80 ? "end" : place < 12 ? "start" : "middle";
  return h(
    "svg",
    {
      class: isOver ? "meter over" : "meter",
      height: 62,
      width: "100%",
      role: "meter",
      "aria-label": "Evidence that the new version is worse",
      "aria-valuemin": 1,
      "aria-valuemax": Math.max(seen.limit, seen.statistic),
      "aria-valuenow": Math.max(1, seen.statistic),
      "aria-valuetext": text,
    },
    h("rect", { class: "passes", x: 0, y: 26, width: at(passes), height: 10 }),
    h("rect", { class: "doubt", x: at(passes), y: 26, width: at(LIMIT_AT - passes), height: 10 }),
    h("rect", { class: "beyond", x: at(LIMIT_AT), y: 26, width: at(100 - LIMIT_AT), height: 10 }),
    h("line", { class: "limit", x1: at(LIMIT_AT), x2: at(LIMIT_AT), y1: 20, y2: 42 }),
    h("circle", { class: "now", cx: at(Math.min(99, Math.max(1, place))), cy: 31, r: 7 }),
    h("text", { class: "value", x: at(place), y: 15, "text-anchor": anchor }, `${odds(seen.statistic)} : 1`),
    h("text", { x: 0, y: 56 }, "no difference"),
    passes > 30
      ? h(
          "text",
          { class: "middle", x: at(passes), y: 56, "text-anchor": "middle" },
          `passes below ${odds(seen.advanceBelow)} : 1`,
        )
      : null,
    h(
      "text",
      { class: "end", x: "100%", y: 56, "text-anchor": "end" },
      `${effect} at ${odds(seen.limit)} : 1`,
    ),
  );
}
