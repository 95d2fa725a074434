// A command to copy: what to type where a page is still empty.

import { h } from "../lib/dom.js";

/** A line for the terminal with a button that copies it. */
export function command(text) {
  return h(
    "div",
    { class: "command" },
    h("code", {}, text),
    h(
      "button",
      {
        type: "button",
        class: "small",
        "aria-label": `Copy: ${text}`,
        onclick: (click) => copy(click.currentTarget, text),
      },
      "Copy",
    ),
  );
}

/** What a place without content says: a sentence, and what to do first. */
export function empty(sentence, ...commands) {
  return h("div", { class: "card empty" }, h("p", {}, sentence), commands.map(command));
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousSibling); // without https there is no clipboard: select it
    button.textContent = "Selected";
  }
  setTimeout(() => {
    button.textContent = "Copy";
  }, 2000);
}
