// Name, pages, whether what is shown is live, and who looks at it.

import { h } from "../lib/dom.js";
import { time } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { router } from "../lib/router.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";

const LINKS = [
  ["/", "Services", "viewer"],
  ["/history", "History", "viewer"],
  ["/audit", "Audit", "admin"],
  ["/tokens", "Tokens", "admin"],
];
const MODES = {
  "": ["wait", "connecting"],
  live: ["on", "live"],
  polling: ["wait", "polling: no event stream"],
};

class Header extends Part {
  start() {
    this.listen(live, "state", () => this.update());
    this.listen(router, "moved", () => this.update());
    this.every(1000, () => live.mode === "stale" && this.update());
  }

  draw() {
    const { path } = this.given;
    const current = path.startsWith("/rollouts/") ? "/history" : path.startsWith("/services/") ? "/" : path;
    return h(
      "header",
      {},
      h(
        "a",
        { class: "brand", href: "/" },
        h(
          "svg",
          { viewBox: "0 0 32 32", "aria-hidden": "true" },
          h("rect", { width: 32, height: 32, rx: 7 }),
          h("path", { d: "M5 20h9c6 0 5-9 13-9M14 20c6 0 7 4 13 4" }),
        ),
        "gateway",
      ),
      h(
        "nav",
        { "aria-label": "Pages" },
        LINKS.filter(([, , role]) => session.may(role)).map(([to, text]) =>
          h("a", { href: to, "aria-current": to === current ? "page" : null }, text),
        ),
      ),
      this.#state(),
      h(
        "p",
        { id: "whoami" },
        h("span", {}, session.you.name),
        h("span", { class: "quiet" }, session.you.role),
      ),
      h("button", { type: "button", id: "sign-out", onclick: () => session.end() }, "Sign out"),
    );
  }

  #state() {
    const [tone, text] = MODES[live.mode] ?? [
      "off",
      `stale: last seen ${time(new Date(live.seenAt).toISOString())}`,
    ];
    return h("p", { id: "live", role: "status", class: tone }, text);
  }
}

customElements.define("gw-header", Header);
