// A row of the audit trail as people say it.

import { duration } from "../lib/format.js";
import { textOf } from "./settings-list.js";

const ACTIONS = {
  "deployment.start": "started a rollout",
  "deployment.rollback": "rolled back",
  "deployment.pause": "paused a rollout",
  "deployment.resume": "resumed a rollout",
  "deployment.promote": "promoted",
  "deployment.complete": "completed a rollout",
  "deployment.traffic": "set the share",
  "deployment.ack": "acknowledged",
  "version.create": "registered a version",
  "version.patch": "changed a version",
  "version.delete": "deleted a version",
  "version.test": "tested a version",
  "version.drain": "drained a version",
  "version.weight": "set a weight",
  "service.create": "made a service",
  "service.patch": "changed a service",
  "service.delete": "deleted a service",
  "service.pause": "held requests",
  "service.resume": "let requests through",
  "service.undo": "undid the last release",
  "token.create": "made a token",
  "token.rotate": "rotated a token",
  "token.revoke": "revoked a token",
  "freeze.put": "froze or unfroze changes",
  "gateway.upgrade": "upgraded the gateway",
  "gateway.backup": "took a backup",
  "session.begin": "signed in",
  "session.end": "signed out",
  login: "signed in",
};
const TIMES = new Set(["timeout", "overlap", "expiresIn", "expires_in"]);
const SHOWN_ELSEWHERE = new Set(["service"]);

export function auditText(row) {
  const said = ACTIONS[row.action] ?? row.action.replaceAll(/[._]/g, " ");
  return row.allowed ? said : `tried: ${said}`;
}

/** Details without braces and quotes. */
export function detailsText(details) {
  return Object.entries(details)
    .filter(([name, value]) => !SHOWN_ELSEWHERE.has(name) && value !== null && value !== "")
    .map(([name, value]) =>
      name === "reason" || name === "note"
        ? `“${value}”`
        : `${name} ${TIMES.has(name) ? duration(value) : textOf(value)}`,
    )
    .join(", ");
}
