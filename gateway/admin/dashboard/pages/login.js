// Where a token is exchanged for a cookie.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { session } from "../state/session.js";
import { command } from "../parts/command.js";

class Login extends Part {
  #error = "";
  #isBusy = false;

  start() {
    document.title = "Sign in – gateway";
  }

  draw() {
    const error = this.#error || session.why;
    return h(
      "form",
      { id: "login", class: "card", onsubmit: (submit) => this.#submit(submit) },
      h("h1", {}, "gateway"),
      h(
        "div",
        { class: "field" },
        h("label", { for: "token" }, "Token"),
        h("input", {
          id: "token",
          type: "password",
          autocomplete: "off",
          spellcheck: "false",
          required: true,
          placeholder: "gw_…",
          autofocus: true,
        }),
      ),
      h("p", { id: "login-error", role: "alert", class: error ? "refusal" : null }, error),
      h("button", { type: "submit", class: "main", disabled: this.#isBusy }, "Sign in"),
      h(
        "p",
        { class: "quiet" },
        "The first start wrote a token beside the store. Show it, where the gateway runs:",
      ),
      command("cat var/admin.token"),
      h("p", { class: "quiet" }, "Or make one for yourself:"),
      command("gateway token create you --role deployer"),
      h("p", { class: "quiet" }, "It is exchanged for a cookie that no script reads, and kept nowhere."),
    );
  }

  async #submit(submit) {
    submit.preventDefault();
    const field = this.querySelector("#token");
    const token = field.value.trim();
    if (!token || this.#isBusy) return;
    this.#isBusy = true;
    this.update();
    try {
      await session.begin(token);
      field.value = "";
    } catch (error) {
      this.#error = error.message;
      field.select();
    }
    this.#isBusy = false;
    this.update();
  }
}

customElements.define("gw-login", Login);
