// One open rollout on the home page: where it is, why, and what can be done about it.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { state, why } from "../lib/words.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import { meter } from "./meter.js";
import { buttonsOf, isWorse, movesOf } from "./moves.js";
import { progressLine, track } from "./progress.js";

const PASSES_BELOW = 0.1; // of the limit: what the judge wants for a step to pass

/** Given: the rollout. */
class RolloutCard extends Part {
  start() {
    this.every(1000, () => this.update()); // the clock
  }

  draw() {
    const rollout = this.given;
    const waits = rollout.status === "paused";
    const { verdict } = rollout;
    return h(
      "article",
      { class: waits ? "card alarm" : "card", "aria-label": `Rollout of ${rollout.serviceName}` },
      h(
        "div",
        { class: "head" },
        h(
          "h3",
          {},
          h(
            "a",
            { href: `/rollouts/${rollout.id}` },
            `${rollout.serviceName} ${rollout.fromVersion ?? "–"} → ${rollout.toVersion}`,
          ),
        ),
        state(rollout.status),
        h("span", { class: "share" }, `${rollout.trafficPercent} %`),
      ),
      track(rollout),
      h("p", { class: "quiet figures" }, progressLine(rollout, Date.now(), live.seenAt)),
      h("p", { class: "verdict" }, why(rollout) || "No verdict yet."),
      rollout.warning ? h("p", { class: "warn" }, rollout.warning) : null,
      verdict ? meter({ ...verdict, advanceBelow: verdict.limit * PASSES_BELOW }, rollout.config) : null,
      waits && session.may("deployer")
        ? h(
            "p",
            { class: "warn" },
            isWorse(rollout)
              ? "It waits for you. The evidence says: roll back."
              : "It waits for you: resume, or roll back.",
          )
        : null,
      buttonsOf(movesOf(rollout)),
    );
  }
}

customElements.define("gw-rollout-card", RolloutCard);
