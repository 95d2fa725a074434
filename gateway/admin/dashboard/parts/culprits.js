// Errors by kind and by route class, both versions side by side: where the difference comes from.

import { h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { table } from "./table.js";

const SHOWN = 8;

export function culprits(rollout, windows) {
  const routes = sums(windows, "routes");
  const kinds = sums(windows, "errors");
  if (!kinds.length) return h("p", { class: "quiet" }, "No error was counted.");
  const named = rollout.verdict?.culprit;
  return [
    named ? h("p", {}, "The judge names ", h("b", {}, named), ".") : null,
    routes.length
      ? table(
          ["Route", rollout.fromVersion ?? "old", rollout.toVersion],
          routes.map((row) => [h("code", {}, row.name), count(row.old), bold(row)]),
        )
      : null,
    table(
      ["Error", rollout.fromVersion ?? "old", rollout.toVersion],
      kinds.map((row) => [h("code", {}, row.name), count(row.old), bold(row)]),
    ),
  ];
}

function bold(row) {
  return row.new > row.old ? h("b", {}, count(row.new)) : count(row.new);
}

/** [{name, old, new}] by the new version's count. */
function sums(windows, field) {
  const rows = new Map();
  for (const window of windows) {
    for (const side of ["old", "new"]) {
      for (const [name, errors] of Object.entries(window[side]?.[field] ?? {})) {
        const row = rows.get(name) ?? { name, old: 0, new: 0 };
        row[side] += errors;
        rows.set(name, row);
      }
    }
  }
  return [...rows.values()].sort((a, b) => b.new - a.new || b.old - a.old).slice(0, SHOWN);
}
