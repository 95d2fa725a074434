// What happened lately, as sentences.

import { h } from "../lib/dom.js";
import { Part } from "../lib/part.js";
import { readable, when } from "../lib/words.js";
import { empty } from "./command.js";
import { whoOf } from "./timeline.js";

const SHOWN = 15;
const WORDS = {
  "breaker.opened": (event) =>
    `the breaker of ${event.data.endpoint} opened after ${event.data.failures} failures`,
  "breaker.half_open": (event) => `the breaker of ${event.data.endpoint} lets a few requests try`,
  "breaker.closed": (event) => `the breaker of ${event.data.endpoint} closed`,
  "version.unhealthy": (event) => `is unhealthy${event.data.error ? `: ${event.data.error}` : ""}`,
  "version.healthy": () => "is healthy",
  "version.created": () => "was registered",
  "version.deleted": () => "was deleted",
  "version.draining": () => "is being drained",
  "version.drained": () => "is drained: it may be stopped",
  "service.created": () => "was made",
  "service.changed": () => "has other settings",
  "service.deleted": () => "was deleted",
  "service.paused": () => "holds new requests",
  "service.resumed": () => "lets requests through again",
};

/** An event as a sentence about what it is about. */
export function eventText(event) {
  const said = WORDS[event.kind]?.(event) ?? event.data.reason ?? event.data.text;
  if (said) return readable(said);
  const data = Object.entries(event.data).filter(([, value]) => value !== null && value !== "");
  return [
    event.kind.replaceAll(/[._]/g, " "),
    ...data.map(([name, value]) => `${name} ${typeof value === "object" ? "…" : value}`),
  ].join(", ");
}

/** Given: {events}, newest first. */
class Events extends Part {
  draw() {
    const events = this.given.events.slice(0, SHOWN);
    if (!events.length)
      return empty("Nothing has happened yet. Follow along in a terminal:", "gateway events -f");
    return h(
      "ol",
      { class: "card events" },
      events.map((event) =>
        h(
          "li",
          { "data-key": `event-${event.id}`, class: event.data.alert ? "alert" : null },
          when(event.at),
          h(
            "span",
            {},
            aboutOf(event),
            " ",
            eventText(event),
            fromOf(event),
          ),
        ),
      ),
    );
  }
}

/** By whom, where that is a person, and at which of several gateways. */
function fromOf(event) {
  const by = event.actor && event.actor !== "gateway" ? whoOf(event.actor) : "";
  const from = [by, event.node ? `at ${event.node}` : ""].filter(Boolean).join(", ");
  return from ? h("span", { class: "quiet" }, ` (${from})`) : null;
}

function aboutOf(event) {
  const about = [event.service, event.version].filter(Boolean).join(" ");
  const to = event.deploymentId
    ? `/rollouts/${event.deploymentId}`
    : event.service
      ? `/services/${encodeURIComponent(event.service)}`
      : null;
  return to ? h("a", { href: to }, about || "rollout") : h("b", {}, about);
}

customElements.define("gw-events", Events);
