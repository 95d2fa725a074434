// A rollout judged again under other settings: where a stricter or more patient judge would have stopped it.

import { path, send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { readable, verdictWord } from "../lib/words.js";

const WAIT_MS = 250;
const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5];
const USUAL = 4; // index of 0.01
const WINDOWS = 10; // so many more, and it is judged again

/** Given: {rollout, windows}; windows: how many are stored. */
class WhatIf extends Part {
  #chosen = null;
  #answer = null;
  #error = "";
  #timer = 0;
  #judged = "";

  start() {
    const set = this.given.rollout.config.falseAlarmRate;
    const index = RATES.findIndex((rate) => rate >= (set ?? RATES[USUAL]));
    this.#chosen ??= index < 0 ? USUAL : index;
  }

  draw() {
    this.#follow();
    const rate = RATES[this.#chosen ?? USUAL];
    return [
      h(
        "div",
        { class: "field" },
        h("label", { for: "whatif" }, "falseAlarmRate"),
        h("input", {
          id: "whatif",
          type: "range",
          min: 0,
          max: RATES.length - 1,
          step: 1,
          ".value": String(this.#chosen),
          "aria-valuetext": `${rate}`,
          "aria-describedby": "whatif-said",
          oninput: (input) => this.#choose(Number(input.target.value)),
        }),
        h(
          "p",
          { class: "hint" },
          `${rate}: ${rate < 0.01 ? "more patient" : rate > 0.01 ? "quicker to stop" : "the default"}. The chance to stop a version that is no worse.`,
        ),
      ),
      h("p", { id: "whatif-said", "aria-live": "polite" }, this.#said()),
    ];
  }

  #said() {
    if (this.#error) return h("span", { class: "bad" }, this.#error);
    if (this.#answer === null) return h("span", { class: "quiet" }, "Judging its windows again…");
    const [replayed] = this.#answer;
    if (!replayed)
      return h("span", { class: "quiet" }, "Its windows are not stored any more, or it never had traffic.");
    const isStopped = replayed.verdict === "abort";
    return [
      h(
        "b",
        {},
        isStopped
          ? `Would have stopped after ${duration(replayed.afterMs)}`
          : `Would not have stopped it (${verdictWord(replayed.verdict)})`,
      ),
      `, in step ${replayed.step + 1}. ${readable(replayed.reason)}`,
    ];
  }

  /** Judge again once there is more to judge by. */
  #follow() {
    const { rollout, windows } = this.given;
    const seen = `${rollout.status} ${Math.ceil(windows / WINDOWS)}`;
    if (seen === this.#judged) return;
    this.#judged = seen;
    this.#ask();
  }

  #choose(index) {
    this.#chosen = index;
    this.update();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), WAIT_MS);
  }

  async #ask() {
    const { rollout } = this.given;
    const config = { ...judgedBy(rollout.config), falseAlarmRate: RATES[this.#chosen] };
    try {
      const found = await send("POST", path("deployment", "whatif"), {
        serviceName: rollout.serviceName,
        strategy: rollout.strategy,
        config,
        deploymentId: rollout.id,
      });
      this.#answer = found.items;
      this.#error = "";
    } catch (error) {
      this.#error = error.message;
    }
    this.update();
  }
}

const JUDGED = [
  "steps",
  "stepInterval",
  "errorThreshold",
  "minRequests",
  "maxLatencyRatio",
  "onLatency",
  "onShift",
  "warmUp",
  "maxFailedUsers",
  "mix",
];

/** Of a rollout's settings those that a replay takes. */
export function judgedBy(config) {
  return Object.fromEntries(
    JUDGED.filter((name) => config[name] !== undefined).map((name) => [name, config[name]]),
  );
}

customElements.define("gw-whatif", WhatIf);
