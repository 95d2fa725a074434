// An address that leads nowhere.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";

class Nowhere extends Part {
  draw() {
    document.title = "Not found – gateway";
    return h(
      "div",
      { class: "card empty" },
      h("h1", {}, "Nothing is here"),
      h("p", {}, h("a", { href: "/" }, "All services"), " or ", h("a", { href: "/history" }, "all rollouts")),
    );
  }
}

customElements.define("gw-nowhere", Nowhere);
