// A service's versions: those in use with what can be done to them, and those that are kept.

import { h } from "../lib/dom.js";
import { duration, millis, percent, rate } from "../lib/format.js";
import { health, state, when } from "../lib/words.js";
import { session } from "../state/session.js";
import { drain, remove } from "./moves.js";
import { start } from "./start.js";
import { table } from "./table.js";
import "./tester.js";

const isPast = (version, service) =>
  version.status === "deprecated" && version.weight === 0 && version.id !== service.currentVersionId;

/** Versions that are not past, with rates from the overview. */
export function versionTable(story, glance) {
  const { service, versions, drains } = story;
  const shown = versions.filter(
    (version) => !isPast(version, service) || (version.draining && !version.drained),
  );
  if (!shown.length) return h("p", { class: "quiet" }, "No version is in use.");
  const rows = shown.map((version) => {
    const now = glance?.versions.find((one) => one.id === version.id);
    return [
      [
        h("b", {}, version.version),
        version.id === service.currentVersionId ? h("span", { class: "quiet" }, " current") : null,
      ],
      [
        h(
          "svg",
          { class: "bar", "aria-hidden": "true" },
          h("rect", { class: "all", width: "100%", height: "100%", rx: 3 }),
          h("rect", { class: "done", width: `${version.share}%`, height: "100%", rx: 3 }),
        ),
        h("span", { class: "number" }, `${Math.round(version.share)} %`),
        Math.round(version.share) === version.weight
          ? null
          : h("span", { class: "quiet" }, ` weight ${version.weight}`),
      ],
      state(health(version)),
      state(version.circuitState),
      state(version.status),
      h("span", { class: "number" }, now ? `${rate(now.rate)}/s` : "–"),
      h("span", { class: "number" }, percent(now?.errorPercent)),
      h("span", { class: "number" }, millis(now?.p95Ms)),
      [h("code", {}, [version.url, ...version.replicas].join(" ")), drainOf(version, drains.get(version.id))],
      actions(version, story, glance),
    ];
  });
  return table(
    ["Version", "Share", "Health", "Breaker", "Status", "Requests", "Errors", "p95", "Address", ""],
    rows,
    { keyOf: (index) => shown[index].id, label: "Versions" },
  );
}

function actions(version, story, glance) {
  if (!session.may("operator")) return null;
  const isCurrent = version.id === story.service.currentVersionId;
  const inRollout = [glance?.deployment?.fromVersionId, glance?.deployment?.toVersionId].includes(version.id);
  return h(
    "div",
    { class: "buttons row-buttons" },
    h("gw-tester", { "data-key": "tester", ".given": { version } }),
    session.may("deployer") && !isCurrent && !glance?.deployment
      ? h(
          "button",
          {
            type: "button",
            class: "small",
            onclick: () => start({ ...glance, versions: story.versions }, version),
          },
          "Roll out",
        )
      : null,
    !isCurrent && !inRollout && !version.draining && version.weight === 0
      ? h("button", { type: "button", class: "small", onclick: () => drain(version) }, "Drain")
      : null,
  );
}

function drainOf(version, drained) {
  if (!drained || version.drained) return null;
  const left = version.drainDeadline ? Date.parse(version.drainDeadline) - Date.now() : null;
  return h(
    "p",
    { class: "draining" },
    `draining: ${drained.inFlight} in flight, ${drained.streams} streams`,
    drained.oldestMs ? `, the oldest since ${duration(drained.oldestMs)}` : "",
    left > 0 ? `; cut in ${duration(left)}` : "",
    drained.waitsFor?.length ? `; waiting for ${drained.waitsFor.join(", ")}` : "",
    drained.safeToStop ? "; safe to stop" : "",
  );
}

/** Past versions that are kept, for an undo. */
export function retained(story, glance) {
  const { service, versions } = story;
  const kept = versions
    .filter((version) => isPast(version, service))
    .sort((a, b) => Date.parse(b.updatedAt) - Date.parse(a.updatedAt));
  const limit = h(
    "p",
    { class: "quiet" },
    `The newest ${service.settings.keepVersions} are kept (keepVersions).`,
  );
  if (!kept.length)
    return [h("p", { class: "quiet" }, "None yet: a version that is replaced stays here."), limit];
  const rows = kept.map((version) => [
    h("b", {}, version.version),
    state(version.drained ? "drained" : "draining"),
    when(version.updatedAt),
    h("code", {}, version.url),
    h(
      "div",
      { class: "buttons row-buttons" },
      session.may("deployer") && !glance?.deployment
        ? h(
            "button",
            {
              type: "button",
              class: "small",
              onclick: () => start({ ...glance, versions: story.versions }, version),
            },
            "Roll out again",
          )
        : null,
      session.may("operator") && version.drained
        ? h("button", { type: "button", class: "small", onclick: () => remove(version) }, "Delete")
        : null,
    ),
  ]);
  return [
    table(["Version", "State", "Retired", "Address", ""], rows, {
      keyOf: (index) => kept[index].id,
      label: "Retained releases",
    }),
    limit,
  ];
}
