// What was decided, when, by whom or what, and on which numbers. Verdicts that repeat are one entry.

import { h } from "../lib/dom.js";
import { count, odds, time } from "../lib/format.js";
import { readable, verdictWord, when } from "../lib/words.js";

const TONES = {
  abort: "bad",
  rollback: "bad",
  fail: "bad",
  failed: "bad",
  pause: "warn",
  ask: "warn",
  advance: "good",
  complete: "good",
  promote: "good",
  cleared: "good",
};
const MACHINES = { judge: "the judge", clock: "the clock", gate: "the test gate", smoke: "the smoke tests" };

/** decisions: oldest first. */
export function timeline(decisions) {
  if (!decisions.length) return h("p", { class: "quiet" }, "Nothing was decided yet.");
  return h(
    "ol",
    { class: "timeline" },
    runsOf(decisions)
      .reverse()
      .map((run) => entry(run)),
  );
}

/** Put decisions that repeat the one before together. */
export function runsOf(decisions) {
  const runs = [];
  for (const decision of decisions) {
    const last = runs.at(-1);
    if (last && same(last[0], decision)) last.push(decision);
    else runs.push([decision]);
  }
  return runs;
}

function same(a, b) {
  return (
    a.verdict === b.verdict &&
    a.actor === b.actor &&
    a.step === b.step &&
    a.data.gate === b.data.gate &&
    a.data.percent === b.data.percent
  );
}

function entry(run) {
  const last = run.at(-1);
  const { percent } = last.data;
  return h(
    "li",
    { class: TONES[last.verdict] ?? null, "data-key": `decision-${run[0].id}` },
    h(
      "p",
      { class: "entry-head" },
      when(run[0].at),
      percent === undefined ? null : h("span", { class: "number" }, `${percent} %`),
      h("b", {}, verdictWord(last.verdict)),
      h(
        "span",
        { class: "quiet" },
        whoOf(last.actor),
        run.length > 1 ? `, ${run.length} times until ${time(last.at)}` : "",
      ),
    ),
    h("p", {}, readable(last.reason)),
    numbers(last.data),
  );
}

/** Who or what: a token's name, or a part of the gateway. */
export function whoOf(actor) {
  if (MACHINES[actor]) return MACHINES[actor];
  return actor.startsWith("hook:") ? `the webhook ${actor.slice(5)}` : actor;
}

function numbers(data) {
  if (data.newAnswers === undefined) return null;
  const sides = [
    ["new", data.newErrors, data.newAnswers],
    ["old", data.oldErrors, data.oldAnswers],
  ]
    .filter(([, , answers]) => answers)
    .map(([side, errors, answers]) => `${side} ${count(errors)} of ${count(answers)} failed`);
  if (data.limit) sides.push(`${odds(data.statistic)} : 1 that it is worse, limit ${odds(data.limit)} : 1`);
  return sides.length ? h("p", { class: "quiet figures" }, sides.join(" · ")) : null;
}
