// A service: its versions, how they do, where they are, and by which policies.

import { h } from "../lib/dom.js";
import { millis, percent, rate } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { PICKS, statsPoints } from "../lib/series.js";
import { Cursor } from "../parts/chart.js";
import { command, empty } from "../parts/command.js";
import { endpoints, probes } from "../parts/endpoints.js";
import { hold, undo } from "../parts/moves.js";
import { policies } from "../parts/policies.js";
import { register } from "../parts/register.js";
import { releases } from "../parts/releases.js";
import { start } from "../parts/start.js";
import { unread } from "../parts/unread.js";
import { retained, versionTable } from "../parts/versions.js";
import { live } from "../state/live.js";
import { ServiceStory } from "../state/service.js";
import { session } from "../state/session.js";
import "../parts/rollout-card.js";

const SPANS = [
  [600_000, "10 min"],
  [3_600_000, "1 hour"],
];
const CHARTS = [
  ["Requests", PICKS.rate, (value) => (value === null ? "–" : `${rate(value)}/s`)],
  ["Errors", PICKS.errors, percent],
  ["Latency p95", PICKS.p95, millis],
];
const LINES = 4; // versions drawn at the most

/** Given: {name}. */
class ServicePage extends Part {
  #story = null;
  #cursor = new Cursor();
  #span = SPANS[1][0];

  start() {
    this.#story = new ServiceStory(this.given.name);
    this.listen(this.#story, "change", () => this.update());
    this.listen(live, "change", () => this.update());
    this.#story.follow(this.signal);
    document.title = `${this.given.name} – gateway`;
  }

  draw() {
    const { service } = this.#story;
    if (!service) return unread(this.#story, "No such service", { href: "/", text: "All services" });
    const glance = live.service(service.name);
    return [
      this.#head(service, glance),
      glance?.deployment
        ? h("gw-rollout-card", { "data-key": glance.deployment.id, ".given": glance.deployment })
        : null,
      section("Last hour", "charts", this.#charts(), this.#spans()),
      section("Versions", "versions", versionTable(this.#story, glance)),
      section("Endpoints", "endpoints", endpoints(this.#story.health, this.#story.versions)),
      section("Probes", "probes", probes(this.#story.health)),
      section("Retained releases", "retained", retained(this.#story, glance)),
      section(
        "Rollouts",
        "releases",
        this.#story.releases.length
          ? releases(this.#story.releases)
          : empty("No rollout yet. Start one:", `gateway deploy ${service.name} VERSION --url URL`),
      ),
      section("Policies in force", "policies", policies(service, this.#story.defaults)),
    ];
  }

  #head(service, glance) {
    const current = this.#story.versions.find((version) => version.id === service.currentVersionId);
    const others = this.#story.versions.filter((version) => version.id !== service.currentVersionId);
    const whyNot = live.overview?.frozen
      ? "Changes are frozen."
      : glance?.deployment
        ? "A rollout is open."
        : others.length
          ? ""
          : "There is no other version: register one first.";
    return h(
      "section",
      { class: service.paused ? "card alarm" : "card", "data-key": "head" },
      h("p", { class: "crumb" }, h("a", { href: "/" }, "Services")),
      h(
        "div",
        { class: "head" },
        h("h1", {}, service.name),
        h("span", {}, current ? current.version : "no current version"),
        h(
          "span",
          { class: "quiet" },
          service.settings.routes
            .map((route) => `${route.host === "*" ? "" : route.host}${route.path}`)
            .join(", "),
        ),
      ),
      service.paused ? h("p", { class: "warn" }, "Paused: new requests are held, up to 30 s each.") : null,
      h(
        "div",
        { class: "buttons" },
        session.may("deployer")
          ? h(
              "button",
              {
                type: "button",
                class: "main",
                "aria-disabled": whyNot ? "true" : null,
                title: whyNot || null,
                onclick: () => whyNot || start({ ...(glance ?? service), versions: this.#story.versions }),
              },
              "Start a rollout",
            )
          : null,
        session.may("operator")
          ? h("button", { type: "button", onclick: () => register(service) }, "Register a version")
          : null,
        session.may("deployer")
          ? h("button", { type: "button", onclick: () => undo(glance ?? service) }, "Undo last release")
          : null,
        session.may("deployer")
          ? h(
              "button",
              { type: "button", onclick: () => hold(service, !service.paused) },
              service.paused ? "Let requests through" : "Hold requests",
            )
          : null,
      ),
      session.may("deployer") && whyNot
        ? h("p", { class: "hint" }, `No rollout can be started now. ${whyNot}`)
        : null,
    );
  }

  #spans() {
    return h(
      "div",
      { class: "segments", role: "group", "aria-label": "Time shown" },
      SPANS.map(([span, text]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(span === this.#span),
            onclick: () => {
              this.#span = span;
              this.update();
            },
          },
          text,
        ),
      ),
    );
  }

  #charts() {
    const { stats } = this.#story;
    const to = stats ? Date.parse(stats.at) : Date.now();
    const from = to - this.#span;
    const inSight = (version) =>
      (version.windows ?? []).filter((window) => Date.parse(window.start) >= from - 10_000);
    const shown = (stats?.versions ?? []).filter((version) => inSight(version).length).slice(-LINES);
    const marks = this.#story.releases
      .filter((one) => one.startedAt)
      .map((one) => ({
        at: Date.parse(one.startedAt),
        label: one.toVersion,
        title: `rollout of ${one.toVersion} began`,
      }))
      .sort((a, b) => a.at - b.at);
    if (!shown.length)
      return h(
        "div",
        {},
        h("p", { class: "quiet" }, "No request in this time."),
        command(`curl -i http://127.0.0.1:4200${this.#story.service.settings.routes[0]?.path ?? "/"}`),
      );
    return h(
      "div",
      { class: "charts three" },
      CHARTS.map(([title, pick, said]) =>
        h("gw-chart", {
          "data-key": title,
          ".given": {
            title,
            said,
            from,
            to,
            marks,
            cursor: this.#cursor,
            lines: shown.map((version, tone) => ({
              name: version.version,
              tone,
              points: statsPoints(inSight(version), pick),
            })),
          },
        }),
      ),
    );
  }
}

function section(title, id, content, aside = null) {
  return h(
    "section",
    { class: "card", "aria-labelledby": `${id}-title`, "data-key": id },
    h("div", { class: "section-head" }, h("h2", { id: `${id}-title` }, title), aside),
    content,
  );
}

customElements.define("gw-service", ServicePage);
