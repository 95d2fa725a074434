// A service's settings as they are in force, each with where it comes from.

import { h } from "../lib/dom.js";
import { settingsList } from "./settings-list.js";
import { command } from "./command.js";

const HIDDEN = new Set(["routes"]); // shown at the head of the page

/** defaults: by name, or null while they are not known. */
export function policies(service, defaults) {
  const source = service.source === "file" ? "gateway.toml" : "API";
  const isDefault = (name) => defaults !== null && same(service.settings[name], defaults[name]);
  const shown = Object.fromEntries(Object.entries(service.settings).filter(([name]) => !HIDDEN.has(name)));
  const names = Object.keys(shown).sort((a, b) => isDefault(a) - isDefault(b));
  return [
    h(
      "p",
      { class: "quiet" },
      service.source === "file"
        ? "Declared in the gateway's configuration file: change it there, then reload."
        : "Made through the API. Change it with:",
    ),
    service.source === "file" ? null : command(`gateway edit ${service.name}`),
    settingsList(Object.fromEntries(names.map((name) => [name, shown[name]])), (name) =>
      defaults === null ? null : isDefault(name) ? "default" : source,
    ),
  ];
}

/** Whether two settings say the same; what one does not mention is as the other has it by default. */
function same(a, b) {
  if (typeof a !== "object" || a === null || typeof b !== "object" || b === null)
    return (a ?? null) === (b ?? null);
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].every((name) => same(a[name], b[name]));
}
