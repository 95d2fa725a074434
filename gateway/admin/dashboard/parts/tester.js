// Probes a version where it stands and runs its smoke tests, and shows the report beside the button.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { test } from "./moves.js";
import { smokeReports } from "./smoke.js";

/** Given: {version}. */
class Tester extends Part {
  #report = null;
  #error = "";
  #isBusy = false;

  draw() {
    const { version } = this.given;
    return [
      h(
        "button",
        {
          type: "button",
          class: "small",
          disabled: this.#isBusy,
          "aria-label": `Test ${version.version}`,
          onclick: () => this.#run(),
        },
        this.#isBusy ? "Testing…" : "Test",
      ),
      h(
        "div",
        { class: "result", "aria-live": "polite" },
        this.#error
          ? h("p", { class: "bad" }, this.#error)
          : this.#report
            ? smokeReports([this.#report])
            : null,
      ),
    ];
  }

  async #run() {
    this.#isBusy = true;
    this.#error = "";
    this.update();
    try {
      this.#report = await test(this.given.version);
    } catch (error) {
      this.#error = error.message;
    }
    this.#isBusy = false;
    this.update();
  }
}

customElements.define("gw-tester", Tester);
