// Home: what is under way, what went wrong, then every service as a row.

import { h } from "../lib/dom.js";
import { millis, percent, rate } from "../lib/format.js";
import { chosen, glanceOf } from "../lib/glance.js";
import { Part } from "../lib/part.js";
import { asked, remember } from "../lib/router.js";
import { state } from "../lib/words.js";
import { empty } from "../parts/command.js";
import { register } from "../parts/register.js";
import { freeze } from "../parts/moves.js";
import { shares } from "../parts/shares.js";
import { sparkline } from "../parts/sparkline.js";
import { approvals } from "../state/approvals.js";
import { hours } from "../state/hours.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import "../parts/alert-card.js";
import "../parts/approval-card.js";
import "../parts/events.js";
import "../parts/rollout-card.js";
import "../parts/rows.js";

const COLUMNS = [
  { label: "Service", class: "name" },
  { label: "Share", class: "share-cell" },
  { label: "Health", class: "health" },
  { label: "Breaker", class: "breaker" },
  { label: "Requests", class: "figure rate" },
  { label: "Errors", class: "figure errors" },
  { label: "p95", class: "figure p95" },
  { label: "Last hour", class: "hour" },
];
const HEIGHT = { wide: 56, phone: 112 };
const FILTERS = [
  ["all", "All"],
  ["look", "Needs a look"],
  ["rollout", "Rolling out"],
  ["quiet", "No traffic"],
];
const ORDERS = [
  ["name", "Name"],
  ["rate", "Requests"],
  ["errors", "Errors"],
  ["p95", "p95"],
];

class Home extends Part {
  #wish = { search: asked("q"), filter: asked("show") || "all", order: asked("sort") || "name" };

  start() {
    this.listen(live, "change", () => this.update());
    this.listen(hours, "change", () => this.update());
    this.listen(approvals, "change", () => this.update());
    approvals.follow(this.signal);
    hours.follow(this.signal);
    this.listen(document, "keydown", (key) => this.#shortcut(key));
  }

  draw() {
    if (!live.overview) return h("p", { class: "quiet" }, "Reading…");
    const rollouts = live.services.map((service) => service.deployment).filter(Boolean);
    document.title = rollouts.length
      ? `${rollouts[0].serviceName} ${rollouts[0].trafficPercent} % – gateway`
      : "gateway";
    const alerts = (live.overview.alerts ?? []).filter(
      (alert) => !rollouts.some((rollout) => rollout.id === alert.deploymentId),
    );
    return [
      h(
        "section",
        { "aria-labelledby": "rollouts-title", id: "rollouts", "data-key": "rollouts" },
        h("h2", { id: "rollouts-title" }, "Open rollouts"),
        rollouts.length
          ? rollouts.map((rollout) => h("gw-rollout-card", { "data-key": rollout.id, ".given": rollout }))
          : h("p", { class: "quiet none" }, "None: every service is on one version."),
      ),
      approvals.items.length
        ? h(
            "section",
            { "aria-labelledby": "approvals-title", id: "approvals", "data-key": "approvals" },
            h("h2", { id: "approvals-title" }, "Waits for a second person"),
            approvals.items.map((asked) => h("gw-approval-card", { "data-key": asked.id, ".given": asked })),
          )
        : null,
      alerts.length
        ? h(
            "section",
            { "aria-labelledby": "alerts-title", id: "alerts", "data-key": "alerts" },
            h("h2", { id: "alerts-title" }, "Not acknowledged yet"),
            alerts.map((alert) => h("gw-alert-card", { "data-key": alert.deploymentId, ".given": alert })),
          )
        : null,
      h(
        "section",
        { "aria-labelledby": "services-title", id: "services", "data-key": "services" },
        this.#services(),
      ),
      h(
        "section",
        { "aria-labelledby": "events-title", id: "events", "data-key": "events" },
        h("h2", { id: "events-title" }, "Events"),
        h("gw-events", { ".given": { events: live.events } }),
      ),
    ];
  }

  #services() {
    const glances = live.services.map(glanceOf);
    const items = chosen(glances, this.#wish);
    return [
      h(
        "div",
        { class: "section-head" },
        h(
          "h2",
          { id: "services-title" },
          "Services ",
          h(
            "span",
            { class: "quiet" },
            items.length === glances.length ? glances.length : `${items.length} of ${glances.length}`,
          ),
        ),
        h(
          "div",
          { class: "buttons" },
          session.may("admin") && !live.overview.frozen
            ? h("button", { type: "button", onclick: () => freeze(true) }, "Freeze changes")
            : null,
          session.may("deployer")
            ? h("button", { type: "button", onclick: () => register(null) }, "New service")
            : null,
        ),
      ),
      glances.length ? this.#tools() : null,
      items.length
        ? h("gw-rows", {
            ".given": {
              items,
              columns: COLUMNS,
              rowOf,
              keyOf: (glance) => glance.service.id,
              height: HEIGHT,
              label: "Services",
            },
          })
        : glances.length
          ? empty("No service matches.")
          : empty(
              "No services yet. Put the first version of one behind the gateway:",
              "gateway deploy SERVICE v1.0 --url http://127.0.0.1:3000 --route /",
            ),
    ];
  }

  #tools() {
    const wish = this.#wish;
    const choose = (name, key) => (change) => this.#set(name, key, change.target.value);
    return h(
      "form",
      { class: "tools", role: "search", onsubmit: (submit) => submit.preventDefault() },
      h(
        "label",
        { class: "grow" },
        h("span", { class: "unseen" }, "Search services"),
        h("input", {
          type: "search",
          id: "search",
          placeholder: "Search by name, version or path  ( / )",
          autocomplete: "off",
          spellcheck: "false",
          ".value": wish.search,
          oninput: choose("search", "q"),
        }),
      ),
      h(
        "label",
        {},
        h("span", { class: "unseen" }, "Show"),
        h(
          "select",
          { ".value": wish.filter, onchange: choose("filter", "show") },
          FILTERS.map(([key, text]) => h("option", { value: key }, text)),
        ),
      ),
      h(
        "label",
        {},
        h("span", { class: "unseen" }, "Sort by"),
        h(
          "select",
          { ".value": wish.order, onchange: choose("order", "sort") },
          ORDERS.map(([key, text]) => h("option", { value: key }, `By ${text.toLowerCase()}`)),
        ),
      ),
    );
  }

  #set(name, key, value) {
    this.#wish = { ...this.#wish, [name]: value };
    remember(key, value === "all" || value === "name" ? "" : value);
    this.update();
  }

  #shortcut(pressed) {
    if (pressed.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.nodeName)) return;
    pressed.preventDefault();
    this.querySelector("#search")?.focus();
  }
}

function rowOf(glance) {
  const { service } = glance;
  const rollout = service.deployment;
  return [
    [
      h("a", { href: `/services/${encodeURIComponent(glance.name)}` }, glance.name),
      h(
        "span",
        { class: "quiet" },
        service.paused
          ? "requests are held"
          : rollout
            ? `→ ${rollout.toVersion}, ${rollout.trafficPercent} %`
            : (glance.current ?? "no version"),
      ),
    ],
    shares(glance.serving),
    state(service.paused ? "paused" : glance.health),
    state(glance.breaker),
    h("span", { class: "number" }, rate(glance.rate), h("span", { class: "unit" }, "/s")),
    h(
      "span",
      { class: `number ${(glance.errorPercent ?? 0) >= 1 ? "bad" : ""}`.trim() },
      percent(glance.errorPercent),
    ),
    h("span", { class: "number" }, millis(glance.p95Ms)),
    sparkline(glance.name, hours.of(glance.name)),
  ];
}

customElements.define("gw-home", Home);
