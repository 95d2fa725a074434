// What can be done to rollouts, services and versions: for each its role, when it is possible, what its dialog says.

import { path, send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { OPEN } from "../lib/words.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import { orWait } from "./approval-card.js";
import { REASON, dialogs } from "./dialog.js";

/** Ask about one move and make it. Resolves with what the API answered, or null if it was not, or not yet, made. */
async function make(question, method, where, bodyOf = ({ reason }) => ({ reason })) {
  const answer = await dialogs.ask({
    fields: [REASON],
    ...question,
    act: (values) => send(method, where, bodyOf(values)),
  });
  await live.look();
  return orWait(answer);
}

/** Whether it was stopped by evidence against the new version: then going on is not the first thing to offer. */
export function isWorse(rollout) {
  return rollout.status === "paused" && rollout.verdict?.verdict === "abort";
}

const at = (rollout, move) => `${path("deployment", rollout.id)}/${move}`;
const nextStep = (rollout) => rollout.steps.find((percent) => percent > rollout.trafficPercent);

/** The moves of one rollout: {label, tone, refused, run}. refused: why it is not possible now. */
export function movesOf(rollout) {
  if (!session.may("deployer") || !OPEN.includes(rollout.status)) return [];
  const frozen = live.overview?.frozen ? "Changes are frozen: only rollbacks and pauses work." : "";
  const isGated = ["pending", "testing"].includes(rollout.status)
    ? "The new version is still being checked."
    : "";
  const isPaused = rollout.status === "paused";
  return [
    { label: "Roll back", tone: isWorse(rollout) ? "danger main" : "danger", run: () => rollback(rollout) },
    isPaused
      ? {
          label: isWorse(rollout) ? "Resume in spite of it" : "Resume",
          tone: isWorse(rollout) ? "" : "main",
          refused: frozen,
          run: () => resume(rollout),
        }
      : { label: "Pause", refused: isGated, run: () => pause(rollout) },
    ...(rollout.trafficPercent < 100
      ? [
          { label: "Next step", refused: isGated || frozen, run: () => promote(rollout, false) },
          { label: "All traffic now", refused: isGated || frozen, run: () => promote(rollout, true) },
        ]
      : [{ label: "Complete now", refused: frozen, run: () => complete(rollout) }]),
  ];
}

function rollback(rollout) {
  const text =
    rollout.trafficPercent > 0
      ? `All traffic of ${rollout.serviceName} goes back to ${rollout.fromVersion ?? "the version before"} at once; ${rollout.toVersion} serves ${rollout.trafficPercent} % now.`
      : `The rollout ends. ${rollout.toVersion} has no traffic, so nothing moves.`;
  return make(
    { title: "Roll back?", text, confirm: "Roll back", tone: "danger" },
    "POST",
    at(rollout, "rollback"),
  );
}

function pause(rollout) {
  const text = `${rollout.serviceName} stays at ${rollout.trafficPercent} % of ${rollout.toVersion} until somebody resumes it. It is still judged.`;
  return make({ title: "Pause?", text, confirm: "Pause" }, "POST", at(rollout, "pause"));
}

function resume(rollout) {
  const text =
    `${rollout.serviceName} goes on from ${rollout.trafficPercent} % of ${rollout.toVersion}.` +
    (isWorse(rollout) ? " The evidence says that the new version is worse." : "");
  return make(
    { title: "Resume?", text, confirm: "Resume", tone: isWorse(rollout) ? "danger" : "" },
    "POST",
    at(rollout, "resume"),
  );
}

function promote(rollout, full) {
  const share = full ? 100 : (nextStep(rollout) ?? 100);
  const text = `${rollout.toVersion} gets ${share} % of ${rollout.serviceName}'s traffic now (${rollout.trafficPercent} % so far), without waiting for the verdict.`;
  const title = full ? "All traffic now?" : "Next step now?";
  const confirm = full ? "All traffic now" : "Next step";
  return make({ title, text, confirm }, "POST", at(rollout, "promote"), ({ reason }) => ({ full, reason }));
}

function complete(rollout) {
  const text = `The watch ends. ${rollout.fromVersion ?? "The version before"} is drained and retired; after that, going back is a new rollout.`;
  return make({ title: "Complete now?", text, confirm: "Complete now" }, "POST", at(rollout, "complete"));
}

/** Say that a rollback or a pause was looked into: its card leaves the home page. */
export function acknowledge(rollout) {
  const text = `${rollout.serviceName} ${rollout.fromVersion ?? "–"} → ${rollout.toVersion}: the card goes away for everybody; the note stays with the rollout.`;
  const note = {
    name: "note",
    label: "Note",
    hint: "What was found, or who looks into it.",
    maxlength: 1000,
  };
  return make(
    { title: "Acknowledge?", text, confirm: "Acknowledge", fields: [note] },
    "POST",
    at(rollout, "ack"),
    ({ note: written }) => ({ note: written }),
  );
}

export function undo(service) {
  const text = service.deployment
    ? `The open rollout of ${service.name} is rolled back.`
    : `${service.name} goes back to the version before, by a new rollout with its own health check.`;
  return make(
    { title: "Undo the last release?", text, confirm: "Undo", tone: "danger" },
    "POST",
    `${path("services", service.name)}/undo`,
  );
}

/** Hold a service's requests, or let them through again. */
export function hold(service, held) {
  const question = held
    ? {
        title: "Hold requests?",
        text: `New requests to ${service.name} wait, up to 30 s each, then get a 503.`,
        confirm: "Hold requests",
        tone: "danger",
      }
    : {
        title: "Let requests through?",
        text: `Requests to ${service.name} are answered again, those that wait in order.`,
        confirm: "Let them through",
      };
  return make(question, "POST", `${path("services", service.name)}/${held ? "pause" : "resume"}`);
}

export function freeze(frozen) {
  const question = frozen
    ? {
        title: "Freeze changes?",
        text: "No rollout starts or advances until somebody unfreezes. Rollbacks and pauses work.",
        confirm: "Freeze",
      }
    : { title: "Unfreeze?", text: "Rollouts start and advance again.", confirm: "Unfreeze" };
  return make(question, "PUT", "freeze", ({ reason }) => ({ frozen, reason }));
}

export function drain(version) {
  const text = `${version.version} gets nothing new; what runs there may finish.`;
  return make(
    { title: `Drain ${version.version}?`, text, confirm: "Drain", fields: [] },
    "POST",
    `${path("deployment", "versions", version.id)}/drain`,
    () => ({}),
  );
}

export function remove(version) {
  const text = `${version.version} is forgotten: it can be released again only after it is registered again.`;
  return make(
    { title: `Delete ${version.version}?`, text, confirm: "Delete", tone: "danger", fields: [] },
    "DELETE",
    path("deployment", "versions", version.id),
    () => ({}),
  );
}

/** Probe a version now and run its smoke tests. Resolves with their report; it moves nothing, so nothing is asked. */
export function test(version) {
  return send("POST", `${path("deployment", "versions", version.id)}/test`);
}

/** The buttons of some moves, and below them why some are not possible. */
export function buttonsOf(moves) {
  if (!moves.length) return null;
  const reasons = [...new Set(moves.map((move) => move.refused).filter(Boolean))];
  return [
    h(
      "div",
      { class: "buttons" },
      moves.map((move) =>
        h(
          "button",
          {
            type: "button",
            class: move.tone || null,
            "data-key": move.label,
            "aria-disabled": move.refused ? "true" : null,
            title: move.refused || null,
            onclick: () => (move.refused ? null : move.run()),
          },
          move.label,
        ),
      ),
    ),
    reasons.map((reason) => h("p", { class: "hint" }, reason)),
  ];
}
