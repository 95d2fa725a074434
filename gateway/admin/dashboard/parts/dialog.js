// One dialog for every question: what will happen, what is to be filled in, and the confirming button last.
// It stays open until the API has agreed; a refusal is shown inside, where the eye is.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";

/** Tells the dialog part what to ask. */
class Dialogs extends EventTarget {
  /** The question being asked; null: none. */
  asked = null;
  #count = 0;

  /**
   * Ask. question: {title, text, confirm, tone, fields, body, wide, act}. body(): more to show inside.
   * `act(values)` does it; what it throws is shown.
   * Resolves with what `act` returned, or null if the reader did not want to.
   */
  ask(question) {
    return new Promise((resolve) => {
      this.#count += 1;
      this.asked = { ...question, number: this.#count, resolve };
      this.dispatchEvent(new Event("change"));
    });
  }

  close(result = null) {
    const { asked } = this;
    this.asked = null;
    asked?.resolve(result);
    this.dispatchEvent(new Event("change"));
  }
}

export const dialogs = new Dialogs();

/** The field every action has: its text goes into the history. */
export const REASON = {
  name: "reason",
  label: "Reason",
  hint: "Kept in the history and the audit trail.",
  maxlength: 1000,
};

class Dialog extends Part {
  #error = "";
  #isBusy = false;

  start() {
    this.listen(dialogs, "change", () => this.#changed());
    this.signal.addEventListener("abort", () => dialogs.close());
  }

  #changed() {
    this.#error = "";
    this.#isBusy = false;
    if (!dialogs.asked) this.querySelector("dialog")?.close(); // gives the focus back to where it was
    this.update();
  }

  draw() {
    const asked = dialogs.asked;
    if (!asked) return [];
    return h(
      "dialog",
      {
        "data-key": `ask-${asked.number}`,
        "aria-labelledby": "ask-title",
        "aria-describedby": "ask-text",
        class: asked.wide ? "wide" : null,
        onclose: () => dialogs.asked === asked && dialogs.close(),
        onclick: (click) => this.#outside(click),
      },
      h(
        "form",
        { novalidate: true, onsubmit: (submit) => this.#submit(submit) },
        h("h2", { id: "ask-title" }, asked.title),
        h("p", { id: "ask-text" }, asked.text),
        (asked.fields ?? []).map(fieldOf),
        asked.body ? h("div", { class: "ask-body", "data-key": "body" }, asked.body()) : null,
        this.#error ? h("p", { class: "refusal", role: "alert" }, this.#error) : null,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", onclick: () => this.querySelector("dialog").close() }, "Cancel"),
          h(
            "button",
            { type: "submit", class: `main ${asked.tone ?? ""}`.trim(), disabled: this.#isBusy },
            this.#isBusy ? "One moment…" : asked.confirm,
          ),
        ),
      ),
    );
  }

  drawn() {
    const dialog = this.querySelector("dialog");
    if (dialog && !dialog.open) {
      dialog.showModal();
      (
        dialog.querySelector("[data-first], input, textarea, select") ?? dialog.querySelector("button.main")
      )?.focus();
    }
  }

  #outside(click) {
    const dialog = this.querySelector("dialog");
    const box = dialog.getBoundingClientRect();
    const isOutside =
      click.target === dialog &&
      (click.clientX < box.left ||
        click.clientX > box.right ||
        click.clientY < box.top ||
        click.clientY > box.bottom);
    if (isOutside) dialog.close();
  }

  async #submit(submit) {
    submit.preventDefault();
    const asked = dialogs.asked;
    if (!asked || this.#isBusy) return;
    const form = submit.target;
    const missing = [...form.elements].find((field) => field.willValidate && !field.checkValidity());
    this.#error = missing
      ? `${missing.labels?.[0]?.firstChild?.textContent ?? missing.name}: ${missing.validationMessage}`
      : "";
    if (missing) missing.focus();
    if (missing) return this.update();
    this.#isBusy = true;
    this.update();
    try {
      const result = await asked.act(Object.fromEntries(new FormData(form)), form);
      if (dialogs.asked === asked) dialogs.close(result ?? true);
    } catch (error) {
      this.#error = error.message;
      this.#isBusy = false;
      this.update();
    }
  }
}

/** A labelled field: {name, label, hint, kind, options, value}; whatever else is given are its attributes. */
export function fieldOf(field) {
  const { name, label, hint, options, kind, value, ...more } = field;
  const id = `ask-${name}`;
  const given = { id, name, "aria-describedby": hint ? `${id}-hint` : null, ...more };
  const control = options
    ? h(
        "select",
        { ...given, ".value": value ?? options[0]?.[0] },
        options.map(([key, text]) => h("option", { value: key }, text)),
      )
    : kind === "checkbox"
      ? h("input", { ...given, type: "checkbox", ".checked": Boolean(value) })
      : h("input", { type: kind ?? "text", autocomplete: "off", ...given, ".value": value ?? "" });
  return h(
    "div",
    { class: kind === "checkbox" ? "field check" : "field", "data-key": name },
    h("label", { for: id }, label),
    control,
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null,
  );
}

customElements.define("gw-dialog", Dialog);
