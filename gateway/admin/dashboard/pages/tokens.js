// Tokens: who may do what, until when. A secret is shown once.

import { all, path, send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { durationOf } from "../lib/parse.js";
import { Part } from "../lib/part.js";
import { since, state, when } from "../lib/words.js";
import { command, empty } from "../parts/command.js";
import { dialogs } from "../parts/dialog.js";
import { table } from "../parts/table.js";
import { session } from "../state/session.js";

const ROLES = [
  ["viewer", "viewer: sees everything, changes nothing"],
  ["operator", "operator: registers, tests and drains versions"],
  ["deployer", "deployer: moves traffic"],
  ["admin", "admin: everything, tokens too"],
];

class Tokens extends Part {
  #tokens = null;
  #error = "";

  start() {
    document.title = "Tokens – gateway";
    if (session.may("admin")) this.#read();
  }

  async #read() {
    try {
      this.#tokens = await all("tokens");
      this.#error = "";
    } catch (error) {
      this.#error = error.message;
    }
    this.update();
  }

  draw() {
    if (!session.may("admin"))
      return h(
        "div",
        { class: "card empty" },
        h("h1", {}, "Tokens"),
        h("p", {}, "Only an admin may see tokens."),
      );
    return [
      h(
        "div",
        { class: "section-head" },
        h("h1", {}, "Tokens"),
        h("button", { type: "button", class: "main", onclick: () => this.#create() }, "New token"),
      ),
      this.#error ? h("p", { class: "refusal", role: "alert" }, this.#error) : null,
      this.#tokens === null
        ? h("p", { class: "quiet" }, "Reading…")
        : this.#tokens.length
          ? h("section", { class: "card", "aria-label": "Tokens" }, this.#rows())
          : empty("No token yet.", "gateway token create ci --role deployer"),
    ];
  }

  #rows() {
    const isOver = (token) =>
      token.revokedAt || (token.expiresAt && Date.parse(token.expiresAt) < Date.now());
    const shown = [...this.#tokens].sort(
      (a, b) => Boolean(isOver(a)) - Boolean(isOver(b)) || Date.parse(b.createdAt) - Date.parse(a.createdAt),
    );
    const rows = shown.map((token) => [
      [h("b", {}, token.name), h("span", { class: "quiet" }, " ", h("code", {}, `${token.prefix}…`))],
      token.role,
      h("code", {}, token.services),
      token.revokedAt ? state("revoked") : isOver(token) ? state("expired") : state("valid"),
      token.lastUsedAt ? since(token.lastUsedAt) : "never",
      token.expiresAt ? when(token.expiresAt) : "never",
      [when(token.createdAt), h("span", { class: "quiet" }, ` by ${token.createdBy}`)],
      isOver(token)
        ? null
        : h(
            "div",
            { class: "buttons row-buttons" },
            h("button", { type: "button", class: "small", onclick: () => this.#rotate(token) }, "Rotate"),
            h(
              "button",
              { type: "button", class: "small danger", onclick: () => this.#revoke(token) },
              "Revoke",
            ),
          ),
    ]);
    return table(["Name", "Role", "Services", "State", "Last used", "Expires", "Made", ""], rows, {
      keyOf: (index) => shown[index].id,
      label: "Tokens",
    });
  }

  async #create() {
    const made = await dialogs.ask({
      title: "New token",
      text: "Its secret is shown once, after this.",
      confirm: "Make token",
      fields: [
        { name: "name", label: "Name", required: true, maxlength: 100, placeholder: "ci" },
        { name: "role", label: "Role", options: ROLES },
        {
          name: "services",
          label: "Services it may change",
          value: "*",
          required: true,
          hint: "A name, with * and ? for parts of it.",
        },
        { name: "expires", label: "Expires in", placeholder: "90d", hint: "Empty: it does not expire." },
      ],
      act: ({ name, role, services, expires }) =>
        send("POST", "tokens", {
          name,
          role,
          services,
          ...(expires ? { expiresIn: durationOf(expires, "Expires in") } : {}),
        }),
    });
    await this.#shownOnce(made);
  }

  async #rotate(token) {
    const made = await dialogs.ask({
      title: `Rotate ${token.name}?`,
      text: "It gets a new secret, shown once after this. The old one works on for as long as you say.",
      confirm: "Rotate",
      fields: [{ name: "overlap", label: "Old secret works on for", value: "1h", hint: "0s: not at all." }],
      act: ({ overlap }) =>
        send("POST", `${path("tokens", token.id)}/rotate`, {
          overlap: durationOf(overlap || "0s", "Overlap"),
        }),
    });
    await this.#shownOnce(made);
  }

  async #revoke(token) {
    await dialogs.ask({
      title: `Revoke ${token.name}?`,
      text: `${token.name} (${token.role}) is refused from now on, browser sessions included.`,
      confirm: "Revoke",
      tone: "danger",
      act: () => send("DELETE", path("tokens", token.id)),
    });
    await this.#read();
  }

  async #shownOnce(made) {
    if (!made) return;
    await this.#read();
    await dialogs.ask({
      title: `The token of ${made.name}`,
      text: "Copy it now: it is shown this once, and only its hash is kept.",
      confirm: "I have it",
      body: () => command(made.token),
      act: async () => true,
    });
  }
}

customElements.define("gw-tokens", Tokens);
