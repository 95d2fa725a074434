// Settings by name, nested ones in one line each.

import { h } from "../lib/dom.js";
import { durationText } from "../lib/parse.js";

const MILLIS = new Set([
  "stepInterval",
  "bakeTime",
  "drainTimeout",
  "maxStepTime",
  "warmUp",
  "interval",
  "timeout",
  "resetTimeout",
  "slowStart",
  "bodyIdle",
  "streamIdle",
  "connect",
  "responseHeader",
  "upstreamIdle",
  "queueTimeout",
]);

/** Settings as they were given. origin(name): a remark on where a value comes from. */
export function settingsList(settings, origin = () => null) {
  const names = Object.keys(settings);
  if (!names.length) return h("p", { class: "quiet" }, "All as the defaults are.");
  return h(
    "dl",
    { class: "settings" },
    names.map((name) => [
      h("dt", { "data-key": `name-${name}` }, name),
      h(
        "dd",
        { "data-key": `value-${name}` },
        origin(name) ? h("span", { class: "origin" }, origin(name)) : null,
        h("code", {}, textOf(settings[name], name)),
      ),
    ]),
  );
}

/** A value as people write it: no quotes, nothing that is not set, times with their unit. */
export function textOf(value, name = "") {
  if (value === null || value === undefined) return "none";
  if (value === false) return "off";
  if (value === true) return "on";
  if (Array.isArray(value)) return value.length ? value.map((one) => textOf(one, name)).join(", ") : "none";
  if (typeof value === "number" && MILLIS.has(name)) return durationText(value);
  if (typeof value !== "object") return String(value);
  const parts = Object.entries(value).filter(
    ([, inner]) => inner !== null && !(Array.isArray(inner) && !inner.length),
  );
  return parts.map(([field, inner]) => `${field} ${textOf(inner, field)}`).join(" · ") || "none";
}
