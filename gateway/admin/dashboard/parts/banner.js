// What concerns everything: changes are frozen, or the gateway has not answered for a while.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import { freeze } from "./moves.js";

class Banner extends Part {
  start() {
    this.listen(live, "change", () => this.update());
    this.listen(live, "state", () => this.update());
  }

  draw() {
    return [
      live.mode === "stale"
        ? h(
            "div",
            { class: "banner bad", role: "alert", "data-key": "stale" },
            h(
              "p",
              {},
              h("b", {}, "The gateway does not answer. "),
              "What you see is old; traffic is still served by its workers. This page goes on trying.",
            ),
          )
        : null,
      live.overview?.frozen
        ? h(
            "div",
            { class: "banner warn", "data-key": "frozen" },
            h(
              "p",
              {},
              h("b", {}, "Frozen"),
              live.overview.freezeReason ? `: ${live.overview.freezeReason}. ` : ". ",
              "Starts are refused and advances held; rollbacks work.",
            ),
            session.may("admin")
              ? h("button", { type: "button", onclick: () => freeze(false) }, "Unfreeze")
              : null,
          )
        : null,
    ];
  }
}

customElements.define("gw-banner", Banner);
