// A table that becomes a list of cards where the screen is narrow.

import { h } from "../lib/dom.js";

/** rows: arrays of cells. keyOf: row index -> key. name: what a screen reader calls it. */
export function table(columns, rows, { keyOf = (index) => index, label = null } = {}) {
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": label ?? columns[0] },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) => h("th", { scope: "col" }, column)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row, index) =>
          h(
            "tr",
            { "data-key": `row-${keyOf(index)}` },
            row.map((cell, at) => h("td", { "data-label": columns[at] || null }, h("div", {}, cell ?? "–"))),
          ),
        ),
      ),
    ),
  );
}
