// A call that waits for a second person: what it would do, and who may agree.

import { path, send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { since, when } from "../lib/words.js";
import { approvals } from "../state/approvals.js";
import { live } from "../state/live.js";
import { session } from "../state/session.js";
import { command } from "./command.js";
import { dialogs } from "./dialog.js";

/** Say that a call was kept for a second person, if it was. Resolves with the call's answer, or null if it waits. */
export async function orWait(answer) {
  if (!answer?.approvalId) return answer;
  await approvals.read();
  await dialogs.ask({
    title: "It waits for a second person",
    text: `${answer.what} Nothing was done yet: somebody else confirms it within 15 minutes, on the home page or by`,
    confirm: "I see",
    body: () => command(answer.next),
    act: async () => true,
  });
  return null;
}

/** Given: an approval. */
class ApprovalCard extends Part {
  start() {
    this.every(1000, () => this.update()); // its age
  }

  draw() {
    const asked = this.given;
    return h(
      "article",
      { class: "card alarm", "aria-label": `${asked.action} of ${asked.service} waits for a second person` },
      h(
        "div",
        { class: "head" },
        h("h3", {}, asked.what),
        h("p", { class: "said" }, "asked ", since(asked.createdAt), ` by ${asked.askedBy}`),
      ),
      h("p", { class: "quiet" }, "It may be confirmed by another person until ", when(asked.expiresAt), "."),
      h(
        "div",
        { class: "buttons" },
        session.may("deployer")
          ? h("button", { type: "button", class: "main", onclick: () => this.#decide("POST") }, "Confirm")
          : null,
        session.may("operator")
          ? h("button", { type: "button", onclick: () => this.#decide("DELETE") }, "Say no")
          : null,
      ),
    );
  }

  async #decide(method) {
    const asked = this.given;
    const isYes = method === "POST";
    await dialogs.ask({
      title: isYes ? "Confirm?" : "Say no?",
      text: isYes
        ? `${asked.what} It is carried out now, as ${asked.askedBy} asked.`
        : `${asked.what} It is dropped.`,
      confirm: isYes ? "Confirm" : "Say no",
      act: () => send(method, path("approvals", asked.id)),
    });
    await Promise.all([approvals.read(), live.look()]);
  }
}

customElements.define("gw-approval-card", ApprovalCard);
