// What stands on a page whose story is not there: not read yet, not to be had, or of nothing.

import { h } from "../lib/dom.js";

/** missing: what to say if there is no such thing. back: {href, text} of where such things are listed. */
export function unread({ error, isMissing }, missing, back) {
  if (!error) return h("p", { class: "quiet" }, "Reading…");
  return h(
    "div",
    { class: "card empty" },
    h("h1", {}, isMissing ? missing : "It cannot be shown now"),
    h("p", {}, error),
    h("a", { href: back.href }, back.text),
  );
}
