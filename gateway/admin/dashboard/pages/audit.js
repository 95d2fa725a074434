// Who changed what, allowed or refused, in sentences.

import { get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { Pages } from "../lib/pages.js";
import { Part } from "../lib/part.js";
import { asked, remember } from "../lib/router.js";
import { short, state, when } from "../lib/words.js";
import { auditText, detailsText } from "../parts/audit-text.js";
import { command, empty } from "../parts/command.js";
import { table } from "../parts/table.js";
import { session } from "../state/session.js";

class Audit extends Part {
  #pages = new Pages();
  #actor = asked("actor");
  #report = null;
  #timer = 0;

  start() {
    document.title = "Audit – gateway";
    if (!session.may("admin")) return;
    this.listen(this.#pages, "change", () => this.update());
    this.#begin();
    this.#verify();
  }

  #begin() {
    return this.#pages.begin(this.#actor ? `audit?actor=${encodeURIComponent(this.#actor)}` : "audit");
  }

  async #verify() {
    this.#report = await get("audit/verify").catch(() => null);
    this.update();
  }

  draw() {
    if (!session.may("admin"))
      return h(
        "div",
        { class: "card empty" },
        h("h1", {}, "Audit"),
        h("p", {}, "Only an admin may read the audit trail."),
      );
    const { items, hasMore, isReading, error } = this.#pages;
    return [
      h("h1", {}, "Audit"),
      this.#trail(),
      h(
        "form",
        { class: "tools", onsubmit: (submit) => submit.preventDefault() },
        h(
          "label",
          { class: "grow" },
          h("span", { class: "unseen" }, "By whom"),
          h("input", {
            type: "search",
            placeholder: "By whom: a token's name",
            autocomplete: "off",
            ".value": this.#actor,
            oninput: (input) => this.#filter(input.target.value.trim()),
          }),
        ),
      ),
      error ? h("p", { class: "refusal", role: "alert" }, error) : null,
      items.length
        ? h("section", { class: "card", "aria-label": "Changes" }, this.#rows(items))
        : isReading
          ? h("p", { class: "quiet" }, "Reading…")
          : empty(this.#actor ? `Nothing was changed by ${this.#actor}.` : "No change yet."),
      hasMore
        ? h(
            "button",
            { type: "button", disabled: isReading, onclick: () => this.#pages.more() },
            "Show older ones",
          )
        : null,
    ];
  }

  #trail() {
    const report = this.#report;
    if (!report) return null;
    return report.ok
      ? h(
          "p",
          { class: "quiet" },
          h("span", { class: "state good" }, "unbroken"),
          ` ${count(report.count)} rows, each linked to the one before. Keep a copy elsewhere:`,
          command("gateway audit export"),
        )
      : h(
          "p",
          { class: "refusal", role: "alert" },
          `The trail is broken at row ${report.brokenAt}: ${report.reason}`,
        );
  }

  #rows(items) {
    const rows = items.map((row) => [
      when(row.at),
      h("b", {}, row.actor || "somebody"),
      [
        auditText(row),
        row.resourceId
          ? h(
              "span",
              { class: "quiet", title: row.resourceId },
              ` ${row.details.service ?? ""} ${short(row.resourceId)}`,
            )
          : null,
      ],
      state(row.allowed ? "allowed" : "refused"),
      h("span", { class: "why" }, detailsText(row.details)),
      h("span", { class: "quiet", title: row.userAgent }, row.address),
    ]);
    return table(["Time", "Who", "What", "Outcome", "Details", "From"], rows, {
      keyOf: (index) => items[index].id,
      label: "Changes",
    });
  }

  #filter(actor) {
    this.#actor = actor;
    remember("actor", actor);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#begin(), 250);
  }
}

customElements.define("gw-audit", Audit);
