// What the page shows, as elements made from what the API said. Nothing here fetches or keeps anything.

import { chart, key } from "./charts.js";
import { h } from "./dom.js";
import { duration, table, when, word } from "./words.js";

const RANKS = ["viewer", "operator", "deployer", "admin"];

/** Whether a role may do what `needed` may. */
export function may(role, needed) {
  return RANKS.indexOf(role) >= RANKS.indexOf(needed);
}

/** One open rollout: where it is, why, and what can be done about it. */
export function rollout(one, role, now, seenAt) {
  const waits = one.status === "paused";
  return h(
    "article", { class: waits ? "card alarm" : "card", "data-key": one.id, "aria-label": `rollout of ${one.serviceName}` },
    h(
      "div", { class: "head" },
      h("h3", {}, one.serviceName),
      h("span", {}, `${one.fromVersion ?? "–"} → ${one.toVersion}`),
      h("span", { class: "quiet" }, one.strategy),
      word(one.status),
      h("span", { class: "grow" }),
      h("span", { class: "share" }, `${one.trafficPercent} %`),
    ),
    track(one),
    h("p", { class: "quiet figures" }, progress(one, now, seenAt)),
    h("p", { class: "verdict" }, one.summary || "No verdict yet."),
    one.warning ? h("p", { class: "warn" }, one.warning) : null,
    evidence(one.verdict),
    waits ? h("p", { class: "warn" }, isWorse(one) ? "It waits for you. The evidence says: roll back." : "It waits for you: resume, or roll back.") : null,
    may(role, "deployer") ? moves(one) : null,
  );
}

/** Whether it was stopped by evidence against the new version: then going on is not the first thing to offer. */
function isWorse(one) {
  return one.status === "paused" && one.verdict?.verdict === "abort";
}

function progress(one, now, seenAt) {
  const parts = [];
  if (one.steps.length) parts.push(`step ${one.currentStep + 1} of ${one.steps.length}`);
  if (one.phase !== one.status) parts.push(one.phase.replaceAll("_", " "));
  if (one.remainingMs !== null) {
    const left = one.status === "rolling" ? one.remainingMs - (now - seenAt) : one.remainingMs;
    parts.push(left > 0 ? `${duration(left)} left in this step` : "this step's time is over");
  }
  if (one.startedAt) parts.push(`running for ${duration(now - Date.parse(one.startedAt))}`);
  return parts.join(" · ");
}

function track(one) {
  const at = (percent) => `${percent}%`;
  return h(
    "svg", { class: "track", role: "img", "aria-label": `${one.trafficPercent} % of the traffic is on ${one.toVersion}` },
    h("rect", { class: "all", x: 0, y: 4, width: "100%", height: 8, rx: 4 }),
    h("rect", { class: "done", x: 0, y: 4, width: at(one.trafficPercent), height: 8, rx: 4 }),
    one.steps.flatMap((percent) => [
      h("line", { class: "tick", x1: at(percent), x2: at(percent), y1: 2, y2: 14 }),
      h("text", { x: at(percent), y: 27, "text-anchor": percent > 95 ? "end" : "middle" }, `${percent} %`),
    ]),
  );
}

function evidence(verdict) {
  if (!verdict) return null;
  const side = (name, answers, errors, rate) => `${name}: ${errors} errors in ${answers} requests (${rate.toFixed(2)} %)`;
  return h("p", { class: "quiet" }, [
    side("new", verdict.newAnswers, verdict.newErrors, verdict.newRate),
    side("old", verdict.oldAnswers, verdict.oldErrors, verdict.oldRate),
  ].join(" · "));
}

function moves(one) {
  const button = (move, label, tone) => h("button", { type: "button", class: tone, "data-action": move, "data-id": one.id }, label);
  return h(
    "div", { class: "buttons" },
    button("rollback", "Roll back", isWorse(one) ? "danger main" : "danger"),
    one.status === "paused" ? button("resume", isWorse(one) ? "Resume in spite of it" : "Resume", isWorse(one) ? null : "main") : button("pause", "Pause"),
    button("promote", "Next step"),
    one.trafficPercent < 100 ? button("promote-full", "All traffic now") : button("complete", "Complete now"),
  );
}

/** One service: its versions, and while it is open, how they do. */
export function service(one, versions, isOpen, rates, role, now) {
  const current = versions.find((version) => version.id === one.currentVersionId);
  const serving = versions.filter((version) => version.weight > 0 || rates.of(version.id).some((point) => point.rate > 0));
  return h(
    "details", { class: "card", "data-key": one.id, "data-service": one.name, open: isOpen },
    h(
      "summary", {},
      h("span", { class: "head" },
        h("h3", {}, one.name),
        h("span", {}, current ? current.version : "no current version"),
        one.paused ? h("span", { class: "warn" }, "paused: requests are held") : null,
        versions.some((version) => version.weight > 0 && version.healthStatus === "unhealthy")
          ? h("span", { class: "bad" }, "unhealthy") : null,
      ),
    ),
    h("div", { class: "wide" }, versionTable(one, versions, serving)),
    isOpen ? charts(serving, rates, now) : null,
    may(role, "deployer") ? h(
      "div", { class: "buttons" },
      h("button", { type: "button", "data-action": "undo", "data-id": one.name }, "Undo last release"),
      one.paused
        ? h("button", { type: "button", class: "main", "data-action": "resume-service", "data-id": one.name }, "Let requests through")
        : h("button", { type: "button", "data-action": "pause-service", "data-id": one.name }, "Hold requests"),
    ) : null,
  );
}

function versionTable(one, versions, serving) {
  const rows = versions.map((version) => [
    h("span", {},
      serving.includes(version) ? key(serving.indexOf(version)) : null,
      h("b", {}, version.version),
      version.id === one.currentVersionId ? h("span", { class: "quiet" }, " current") : null),
    h("span", { class: "number" },
      h("svg", { class: "bar", "aria-hidden": "true" },
        h("rect", { class: "all", width: "100%", height: "100%", rx: 3 }),
        h("rect", { class: "done", width: `${version.share}%`, height: "100%", rx: 3 })),
      `${version.share} %`,
      version.share === version.weight ? null : h("span", { class: "quiet" }, ` weight ${version.weight}`)),
    word(version.healthStatus),
    word(version.circuitState),
    word(version.draining && !version.drained ? "draining" : version.status),
    h("code", {}, [version.url, ...version.replicas].join(" ")),
  ]);
  const columns = ["Version", "Weight", "Health", "Breaker", "Status", "Address"];
  return table(columns, rows, (index) => versions[index].id, "No versions yet.");
}

function charts(versions, rates, now) {
  if (!versions.length) return null;
  const lines = (pick) => versions.map((version) => ({
    name: version.version,
    points: rates.of(version.id).map((point) => ({ at: point.at, value: pick(point) })),
  }));
  return h(
    "div", { class: "charts" },
    chart("Requests", lines((point) => point.rate), "/s", now),
    chart("Errors", lines((point) => point.errors), "%", now),
    chart("Latency p95", lines((point) => point.p95), "ms", now),
  );
}

export function history(deployments) {
  const rows = deployments.map((one) => [
    when(one.startedAt ?? one.createdAt),
    one.serviceName,
    `${one.fromVersion ?? "–"} → ${one.toVersion}`,
    one.strategy,
    word(one.status),
    one.createdBy,
    one.summary || one.errorMessage || "",
  ]);
  const columns = ["Started", "Service", "Versions", "Strategy", "Status", "By", "Why"];
  return table(columns, rows, (index) => deployments[index].id, "No rollout yet. Start one with: gateway deploy SERVICE VERSION --url URL");
}

export function events(list) {
  const rows = list.map((event) => [
    when(event.at),
    event.kind,
    [event.service, event.version].filter(Boolean).join(" "),
    event.actor,
    event.data.reason ?? event.data.text ?? Object.entries(event.data).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", "),
  ]);
  return table(["Time", "What", "About", "By", "Detail"], rows, (index) => list[index].id, "Nothing has happened yet.");
}

/** The first part of a UUID; other ids are whole. */
function short(id) {
  return /^[0-9a-f]{8}-/.test(id) ? id.slice(0, 8) : id;
}

export function audit(list) {
  const rows = list.map((row) => [
    when(row.at),
    row.actor,
    row.action,
    h("span", { title: row.resourceId }, `${row.resource} ${short(row.resourceId)}`),
    row.allowed ? "allowed" : h("span", { class: "bad" }, "refused"),
    row.address,
    Object.keys(row.details).length ? JSON.stringify(row.details) : "",
  ]);
  return table(["Time", "Who", "What", "On", "Outcome", "From", "Details"], rows, (index) => list[index].id, "No change yet.");
}
