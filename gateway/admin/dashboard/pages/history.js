// Every rollout there was, newest first.

import { h } from "../lib/dom.js";
import { Pages } from "../lib/pages.js";
import { Part } from "../lib/part.js";
import { asked, remember } from "../lib/router.js";
import { empty } from "../parts/command.js";
import { releases } from "../parts/releases.js";
import { live } from "../state/live.js";

const STATUSES = ["", "rolling", "paused", "completed", "rolled_back", "failed", "pending", "testing"];

class History extends Part {
  #pages = new Pages();
  #service = asked("service");
  #status = asked("status");

  start() {
    document.title = "History – gateway";
    this.listen(this.#pages, "change", () => this.update());
    this.listen(live, "change", () => this.update());
    this.listen(live, "happened", (event) => {
      if (event.detail.deploymentId && this.#pages.items.length <= 50) this.#begin();
    });
    this.#begin();
  }

  #begin() {
    const query = new URLSearchParams();
    if (this.#service) query.set("serviceName", this.#service);
    if (this.#status) query.set("status", this.#status);
    const text = query.toString();
    this.#pages.begin(`deployment${text ? `?${text}` : ""}`);
  }

  draw() {
    const { items, hasMore, isReading, error } = this.#pages;
    const isFiltered = this.#service || this.#status;
    return [
      h("h1", {}, "History"),
      h(
        "form",
        { class: "tools", onsubmit: (submit) => submit.preventDefault() },
        h(
          "label",
          {},
          h("span", { class: "unseen" }, "Service"),
          h(
            "select",
            { ".value": this.#service, onchange: (change) => this.#set("service", change.target.value) },
            h("option", { value: "" }, "All services"),
            this.#names().map((name) => h("option", { value: name }, name)),
          ),
        ),
        h(
          "label",
          {},
          h("span", { class: "unseen" }, "Status"),
          h(
            "select",
            { ".value": this.#status, onchange: (change) => this.#set("status", change.target.value) },
            STATUSES.map((status) =>
              h("option", { value: status }, status ? status.replace("_", " ") : "Any status"),
            ),
          ),
        ),
      ),
      error ? h("p", { class: "refusal", role: "alert" }, error) : null,
      items.length
        ? h("section", { class: "card", "aria-label": "Rollouts" }, releases(items))
        : isReading
          ? h("p", { class: "quiet" }, "Reading…")
          : isFiltered
            ? h("p", { class: "card quiet" }, "No rollout matches.")
            : empty("No rollout yet. Start one:", "gateway deploy SERVICE VERSION --url URL"),
      hasMore
        ? h(
            "button",
            { type: "button", disabled: isReading, onclick: () => this.#pages.more() },
            "Show older ones",
          )
        : null,
    ];
  }

  #names() {
    const names = live.services.map((service) => service.name);
    return this.#service && !names.includes(this.#service) ? [this.#service, ...names] : names;
  }

  #set(name, value) {
    if (name === "service") this.#service = value;
    else this.#status = value;
    remember(name, value);
    this.#begin();
  }
}

customElements.define("gw-history", History);
