// The frame around every page: header, banner, the page itself, dialogs.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { here, router } from "../lib/router.js";
import { hours } from "../state/hours.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import "./header.js";
import "./banner.js";
import { dialogs } from "./dialog.js";

class Shell extends Part {
  #shown = "";
  #wasSignedIn = false;

  start() {
    this.listen(session, "change", () => this.#changed());
    this.listen(router, "moved", () => this.update());
  }

  #changed() {
    const isIn = session.you !== null;
    if (isIn && !this.#wasSignedIn) live.begin();
    if (!isIn) {
      live.stop();
      hours.forget();
      dialogs.close();
    }
    this.#wasSignedIn = isIn;
    this.update();
  }

  draw() {
    if (!session.isKnown) return [];
    if (!session.you) return [h("main", { id: "main", "data-key": "login" }, h("gw-login"))];
    const { tag, params, path } = here();
    return [
      h("a", { class: "skip", href: "#main" }, "Skip to content"),
      h("gw-header", { ".given": { path } }),
      h("gw-banner"),
      h("main", { id: "main", tabindex: "-1", "data-key": path }, h(tag, { ".given": params })),
      h("gw-dialog"),
    ];
  }

  /** After going to another page its beginning is where reading goes on. */
  drawn() {
    const { path } = here();
    const isOther = this.#shown !== "" && this.#shown !== path;
    this.#shown = session.you ? path : "";
    if (!isOther || !session.you) return;
    scrollTo(0, 0);
    this.querySelector("main").focus({ preventScroll: true });
  }
}

customElements.define("gw-shell", Shell);
