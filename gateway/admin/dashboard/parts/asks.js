// Each time the old version was asked whether the cause is one that both share, and what came of it.

import { h } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { state, when } from "../lib/words.js";

const ENDS = {
  cleared: "cleared: both fail alike",
  abort: "confirmed: the new version is worse",
  pause: "undecided: a person decides",
  rollback: "rolled back",
};

/** decisions: oldest first. */
export function askList(decisions) {
  const asks = asksOf(decisions);
  if (!asks.length)
    return h(
      "p",
      { class: "quiet" },
      "None. The judge asks when errors could have a cause that both versions share.",
    );
  return h(
    "ol",
    { class: "plain-list" },
    asks.map((ask) =>
      h(
        "li",
        {},
        h(
          "p",
          { class: "entry-head" },
          when(ask.began.at),
          state(ask.end ? (ENDS[ask.end.verdict] ?? ask.end.verdict) : "running"),
          ask.end
            ? h(
                "span",
                { class: "quiet" },
                `after ${duration(Date.parse(ask.end.at) - Date.parse(ask.began.at))}`,
              )
            : null,
        ),
        h("p", {}, (ask.end ?? ask.began).reason),
      ),
    ),
  );
}

function asksOf(decisions) {
  const asks = [];
  for (const decision of decisions) {
    const open = asks.at(-1);
    if (decision.verdict === "ask") asks.push({ began: decision, end: null });
    else if (open && !open.end && decision.verdict in ENDS) open.end = decision;
  }
  return asks;
}
