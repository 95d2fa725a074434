// Rollouts as a table: what, how it ended, when, by whom and why.

import { h } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { OPEN, state, when, why } from "../lib/words.js";
import { endOf } from "./progress.js";
import { table } from "./table.js";

export function releases(rollouts) {
  const rows = rollouts.map((rollout) => [
    h(
      "a",
      { class: "number", href: `/rollouts/${rollout.id}` },
      `${rollout.serviceName} ${rollout.fromVersion ?? "–"} → ${rollout.toVersion}`,
    ),
    h(
      "span",
      { class: "number" },
      state(rollout.status),
      OPEN.includes(rollout.status) ? h("span", { class: "quiet" }, ` ${rollout.trafficPercent} %`) : null,
    ),
    when(rollout.startedAt ?? rollout.createdAt),
    h("span", { class: "number" }, tookOf(rollout)),
    rollout.strategy,
    rollout.createdBy ?? "–",
    h("span", { class: "why" }, why(rollout)),
  ]);
  return table(["Rollout", "Status", "Started", "Took", "Strategy", "By", "Why"], rows, {
    keyOf: (index) => rollouts[index].id,
    label: "Rollouts",
  });
}

function tookOf(rollout) {
  const end = endOf(rollout);
  return end ? duration(Date.parse(end) - Date.parse(rollout.startedAt ?? rollout.createdAt)) : "–";
}
