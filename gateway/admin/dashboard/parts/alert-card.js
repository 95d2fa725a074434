// A rollback, failure or pause that nobody has acknowledged yet.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { readable, since } from "../lib/words.js";
import { session } from "../state/session.js";
import { acknowledge } from "./moves.js";
import { whoOf } from "./timeline.js";

const SAID = { rolled_back: "rolled back", failed: "failed its checks", paused: "paused" };

/** Given: an alert of the overview. */
class AlertCard extends Part {
  start() {
    this.every(1000, () => this.update()); // its age
  }

  draw() {
    const alert = this.given;
    return h(
      "article",
      { class: `card alert ${alert.kind}`, "aria-label": `${alert.serviceName} ${SAID[alert.kind]}` },
      h(
        "div",
        { class: "head" },
        h(
          "h3",
          {},
          h(
            "a",
            { href: `/rollouts/${alert.deploymentId}` },
            `${alert.serviceName} ${alert.fromVersion ?? "–"} → ${alert.toVersion}`,
          ),
        ),
        h(
          "p",
          { class: "said" },
          h("b", {}, SAID[alert.kind]),
          " ",
          since(alert.at),
          ` by ${whoOf(alert.actor)}`,
        ),
      ),
      h(
        "p",
        { class: "verdict" },
        alert.reason ? `Because: ${readable(alert.reason)}` : "No reason was given.",
      ),
      h(
        "div",
        { class: "buttons" },
        session.may("operator")
          ? h(
              "button",
              { type: "button", onclick: () => acknowledge({ ...alert, id: alert.deploymentId }) },
              "Acknowledge",
            )
          : null,
        h("a", { class: "button", href: `/rollouts/${alert.deploymentId}` }, "What happened"),
      ),
    );
  }
}

customElements.define("gw-alert-card", AlertCard);
