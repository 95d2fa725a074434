// Where versions are, and what their latest probes said.

import { h } from "../lib/dom.js";
import { millis } from "../lib/format.js";
import { since, state, when } from "../lib/words.js";
import { table } from "./table.js";

/** health: of `GET services/:name/health`. versions: the service's, as the API lists them. */
export function endpoints(health, versions) {
  const found = health.versions.flatMap((version) =>
    version.endpoints.map((endpoint) => ({ version, endpoint })),
  );
  if (!found.length) return h("p", { class: "quiet" }, "No address is known yet.");
  const isDrained = ({ versionId }) => versions.find((one) => one.id === versionId)?.drained;
  const rows = found.map(({ version, endpoint }) => [
    version.version,
    h("code", {}, endpoint.url),
    state(
      isDrained(version)
        ? "drained"
        : endpoint.draining
          ? "draining"
          : endpoint.healthy
            ? "healthy"
            : "unhealthy",
    ),
    state(endpoint.circuitState),
    endpoint.failureCount ? `${endpoint.failureCount} in a row` : "none",
    endpoint.lastFailureTime ? since(endpoint.lastFailureTime) : "never",
    endpoint.nextAttemptTime ? when(endpoint.nextAttemptTime) : "–",
  ]);
  return table(["Version", "Endpoint", "Health", "Breaker", "Failures", "Last failure", "Next trial"], rows, {
    keyOf: (index) => found[index].endpoint.key,
    label: "Endpoints",
  });
}

/** The newest probes of each version: a strip, oldest left, and the last one in words. */
export function probes(health) {
  const probed = health.versions.filter((version) => version.checks.length);
  if (!probed.length) return h("p", { class: "quiet" }, "No probe has been sent yet.");
  return h(
    "ul",
    { class: "probes" },
    probed.map((version) =>
      h(
        "li",
        { "data-key": version.versionId },
        h("b", {}, version.version),
        h(
          "span",
          { class: "strip", role: "img", "aria-label": stripText(version) },
          [...version.checks].reverse().map((check) =>
            h(
              "span",
              {
                class: check.isHealthy ? "probe good" : "probe bad",
                title: `${new Date(check.checkedAt).toLocaleTimeString("en-GB")} ${check.endpoint}: ${checkText(check)}`,
                "data-key": check.id,
              },
              check.isHealthy ? "✓" : "✕",
            ),
          ),
        ),
        h(
          "span",
          {},
          "last ",
          when(version.checks[0].checkedAt),
          ": ",
          h("span", { class: version.checks[0].isHealthy ? "" : "bad" }, checkText(version.checks[0])),
        ),
      ),
    ),
  );
}

function checkText(check) {
  const status = check.statusCode === null ? "" : `${check.statusCode} `;
  return check.isHealthy
    ? `${status}in ${millis(check.responseTime)}`
    : (check.errorMessage ?? `${status}in ${millis(check.responseTime)}`);
}

function stripText(version) {
  const failed = version.checks.filter((check) => !check.isHealthy).length;
  return `${version.checks.length} probes, ${failed || "none"} failed`;
}
