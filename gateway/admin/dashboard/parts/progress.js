// Where a rollout is: share, steps, time left, in one line and one bar.

import { h } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { OPEN } from "../lib/words.js";

/** What runs now, and how long it still takes. seenAt: when `rollout` was read; its time left has run since. */
export function progressLine(rollout, now, seenAt) {
  const isOpen = OPEN.includes(rollout.status);
  const parts = [rollout.strategy];
  if (isOpen && rollout.steps.length)
    parts.push(`step ${Math.min(rollout.currentStep + 1, rollout.steps.length)} of ${rollout.steps.length}`);
  if (isOpen && rollout.phase !== rollout.status && rollout.phase !== "stepping")
    parts.push(rollout.phase.replaceAll("_", " "));
  if (isOpen && rollout.remainingMs !== null) {
    const left = rollout.status === "rolling" ? rollout.remainingMs - (now - seenAt) : rollout.remainingMs;
    parts.push(left > 0 ? `${duration(left)} left in this step` : "this step's time is over");
  }
  const began = rollout.startedAt ?? rollout.createdAt;
  const end = endOf(rollout);
  if (began)
    parts.push(
      end
        ? `took ${duration(Date.parse(end) - Date.parse(began))}`
        : `running for ${duration(now - Date.parse(began))}`,
    );
  if (rollout.createdBy) parts.push(`by ${rollout.createdBy}`);
  return parts.join(" · ");
}

/** When a rollout ended; null while it is open. */
export function endOf(rollout) {
  if (OPEN.includes(rollout.status)) return null;
  return rollout.completedAt ?? rollout.rolledBackAt ?? rollout.updatedAt;
}

/** The share as a bar with the steps below it. */
export function track(rollout) {
  const at = (percent) => `${percent}%`;
  let free = -1;
  const steps = [...new Set(rollout.steps)].map((percent) => {
    const hasRoom = percent - free >= 6;
    if (hasRoom) free = percent;
    const anchor = percent > 95 ? "end" : percent < 4 ? "start" : "middle";
    return [
      percent < 100 ? h("line", { class: "tick", x1: at(percent), x2: at(percent), y1: 2, y2: 14 }) : null,
      hasRoom || percent === 100
        ? h("text", { x: at(percent), y: 28, "text-anchor": anchor }, `${percent} %`)
        : null,
    ];
  });
  return h(
    "svg",
    {
      class: `track ${rollout.status}`,
      width: "100%",
      height: 32,
      role: "img",
      "aria-label": `${rollout.trafficPercent} % of the traffic is on ${rollout.toVersion}`,
    },
    h("rect", { class: "all", x: 0, y: 4, width: "100%", height: 8, rx: 4 }),
    h("rect", { class: "done", x: 0, y: 4, width: at(rollout.trafficPercent), height: 8, rx: 4 }),
    steps,
  );
}
