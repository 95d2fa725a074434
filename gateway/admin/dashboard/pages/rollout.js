// A rollout, while it runs and for good: the page that `deploy` links to, and the post-mortem.

import { h } from "../lib/dom.js";
import { millis, percent, rate, time } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { PICKS, rolloutPoints } from "../lib/series.js";
import { since, state, verdictWord, when, why } from "../lib/words.js";
import { Cursor } from "../parts/chart.js";
import { command } from "../parts/command.js";
import { acknowledge, buttonsOf, isWorse, movesOf } from "../parts/moves.js";
import { endOf, progressLine, track } from "../parts/progress.js";
import { askList } from "../parts/asks.js";
import { culprits } from "../parts/culprits.js";
import { settingsList } from "../parts/settings-list.js";
import { smokeReports } from "../parts/smoke.js";
import { timeline } from "../parts/timeline.js";
import { unread } from "../parts/unread.js";
import { RolloutStory } from "../state/rollout.js";
import { session } from "../state/session.js";
import "../parts/evidence.js";
import "../parts/whatif.js";

const LEAST_MS = 15_000; // so that the first seconds are not stretched over the whole width
const AFTER_MS = 2_000;
const perSecond = (value) => (value === null ? "–" : `${rate(value)}/s`);
const CHARTS = [
  ["Requests", PICKS.rate, perSecond],
  ["Errors", PICKS.errors, percent],
  ["Latency p50", PICKS.p50, millis],
  ["Latency p95", PICKS.p95, millis],
  ["Latency p99", PICKS.p99, millis],
];

/** Given: {id}. */
class RolloutPage extends Part {
  #story = null;
  #cursor = new Cursor();

  start() {
    this.#story = new RolloutStory(this.given.id);
    this.listen(this.#story, "change", () => this.update());
    this.listen(session, "change", () => this.update());
    this.#story.follow(this.signal);
    this.every(1000, () => this.#story.isOpen && this.update());
  }

  draw() {
    const { rollout } = this.#story;
    if (!rollout) return unread(this.#story, "No such rollout", { href: "/history", text: "All rollouts" });
    document.title = `${rollout.serviceName} ${rollout.fromVersion ?? "–"} → ${rollout.toVersion}, ${rollout.status.replace("_", " ")} – gateway`;
    return [this.#head(rollout), this.#evidence(rollout), this.#charts(rollout), this.#rest(rollout)];
  }

  #head(rollout) {
    const end = endOf(rollout);
    const tone =
      { rolled_back: "alert", failed: "alert", paused: "alarm", completed: "fine" }[rollout.status] ?? "";
    return h(
      "section",
      { class: `card ${tone}`.trim(), "data-key": "head" },
      h(
        "p",
        { class: "crumb" },
        h("a", { href: `/services/${encodeURIComponent(rollout.serviceName)}` }, rollout.serviceName),
        " / rollout",
      ),
      h(
        "div",
        { class: "head" },
        h("h1", {}, `${rollout.serviceName} ${rollout.fromVersion ?? "–"} → ${rollout.toVersion}`),
        state(rollout.status),
        h("span", { class: "share" }, `${rollout.trafficPercent} %`),
      ),
      track(rollout),
      h("p", { class: "quiet figures" }, progressLine(rollout, Date.now(), this.#story.seenAt)),
      h(
        "p",
        { class: "verdict" },
        end
          ? [
              h("b", {}, `${rollout.status.replace("_", " ")} `),
              since(end),
              why(rollout) ? `: ${why(rollout)}` : "",
            ]
          : why(rollout) || "No verdict yet.",
      ),
      rollout.warning ? h("p", { class: "warn" }, rollout.warning) : null,
      rollout.stored === false
        ? h("p", { class: "warn" }, "In force, but the store could not take it yet.")
        : null,
      isWorse(rollout) ? h("p", { class: "warn" }, "It waits for you. The evidence says: roll back.") : null,
      this.#acknowledged(rollout),
      buttonsOf(movesOf(rollout)),
    );
  }

  #acknowledged(rollout) {
    const seen = rollout.acknowledged;
    if (seen)
      return h(
        "p",
        { class: "note" },
        "Acknowledged by ",
        h("b", {}, seen.actor),
        " ",
        since(seen.at),
        seen.note ? `: ${seen.note}` : "",
      );
    const isBad = ["rolled_back", "failed", "paused"].includes(rollout.status);
    if (!isBad || !session.may("operator")) return null;
    return h(
      "div",
      { class: "buttons", "data-key": "ack" },
      h("button", { type: "button", onclick: () => acknowledge(rollout) }, "Acknowledge"),
    );
  }

  /** What all drawings share: their time, the marks of what changed, and what is pointed at. */
  #shared() {
    const { windows, statistics, decisions, isOpen } = this.#story;
    const last = windows.at(-1);
    const marks = marksOf(decisions);
    const starts = [
      ...[windows[0]?.start, statistics[0]?.at].filter(Boolean).map(Date.parse),
      ...marks.slice(0, 1).map((mark) => mark.at),
    ];
    const ends = [
      last ? Date.parse(last.start) + 1000 * last.seconds : null,
      statistics.length ? Date.parse(statistics.at(-1).at) : null,
    ].filter(Boolean);
    const from = starts.length ? Math.min(...starts) : Date.now() - LEAST_MS;
    const end = isOpen ? Math.max(Date.now(), ...ends) : Math.max(...ends, from) + AFTER_MS;
    return { from, to: Math.max(end, from + LEAST_MS), marks, cursor: this.#cursor };
  }

  #evidence(rollout) {
    const points = this.#story.statistics;
    return h(
      "section",
      { class: "card", "aria-labelledby": "evidence-title", "data-key": "evidence" },
      h("h2", { id: "evidence-title" }, "Evidence"),
      h("gw-evidence", {
        ".given": { points, config: rollout.config, isOpen: this.#story.isOpen, ...this.#shared() },
      }),
    );
  }

  #charts(rollout) {
    const { windows } = this.#story;
    const shared = this.#shared();
    return h(
      "section",
      { class: "card", "aria-labelledby": "charts-title", "data-key": "charts" },
      h("h2", { id: "charts-title" }, "Both versions"),
      h(
        "div",
        { class: "charts" },
        CHARTS.map(([title, pick, said]) =>
          h("gw-chart", {
            "data-key": title,
            ".given": {
              title,
              said,
              ...shared,
              lines: [
                ["old", rollout.fromVersion],
                ["new", rollout.toVersion],
              ]
                .filter(([, name]) => name)
                .map(([side, name], tone) => ({
                  name,
                  tone: side === "new" ? 1 : 0,
                  points: rolloutPoints(windows, side, pick),
                })),
            },
          }),
        ),
      ),
    );
  }

  #rest(rollout) {
    const { windows, decisions, smoke } = this.#story;
    return h(
      "div",
      { class: "columns", "data-key": "rest" },
      h(
        "section",
        { class: "card", "aria-labelledby": "timeline-title" },
        h("h2", { id: "timeline-title" }, "Timeline"),
        timeline(decisions),
      ),
      h(
        "div",
        {},
        h(
          "section",
          { class: "card", "aria-labelledby": "routes-title" },
          h("h2", { id: "routes-title" }, "Where errors come from"),
          culprits(rollout, windows),
        ),
        h(
          "section",
          { class: "card", "aria-labelledby": "asks-title" },
          h("h2", { id: "asks-title" }, "Asks of the old version"),
          askList(decisions),
        ),
        h(
          "section",
          { class: "card", "aria-labelledby": "smoke-title" },
          h("h2", { id: "smoke-title" }, "Smoke tests"),
          smokeReports(smoke),
        ),
        h(
          "section",
          { class: "card", "aria-labelledby": "whatif-title" },
          h("h2", { id: "whatif-title" }, "What if"),
          h("gw-whatif", { ".given": { rollout, windows: windows.length } }),
        ),
        h(
          "section",
          { class: "card", "aria-labelledby": "settings-title" },
          h("h2", { id: "settings-title" }, "Settings"),
          settingsList(rollout.config),
          h(
            "p",
            { class: "quiet" },
            "Started ",
            when(rollout.startedAt ?? rollout.createdAt),
            ". The same in a terminal:",
          ),
          command(`gateway why ${rollout.serviceName}`),
        ),
      ),
    );
  }
}

/** Where the share changed, and how it ended. */
function marksOf(decisions) {
  const marks = [];
  let share = 0;
  for (const decision of decisions) {
    const now = decision.data.percent;
    if (now === undefined || now === share) continue;
    const isBack = now < share;
    marks.push({
      at: Date.parse(decision.at),
      label: `${now} %`,
      tone: isBack ? "back" : "",
      title: `${time(decision.at)}: ${now} %, ${verdictWord(decision.verdict)}`,
    });
    share = now;
  }
  return marks;
}

customElements.define("gw-rollout", RolloutPage);
