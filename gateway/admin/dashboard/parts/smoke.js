// Reports of smoke tests: each request that was sent, and what came back.

import { h } from "../lib/dom.js";
import { millis } from "../lib/format.js";
import { state, when } from "../lib/words.js";

/** reports: newest first. */
export function smokeReports(reports) {
  if (!reports.length) return h("p", { class: "quiet" }, "None were run.");
  return reports.map((report, index) =>
    h(
      "details",
      { class: "report", "data-key": `smoke-${report.id ?? index}`, open: index === 0 || !report.isHealthy },
      h(
        "summary",
        {},
        state(report.isHealthy ? "passed" : "failed"),
        " ",
        report.at ? when(report.at) : null,
        h(
          "span",
          { class: "quiet" },
          ` ${report.tests.length} ${report.tests.length === 1 ? "request" : "requests"} in ${millis(report.responseTime)}`,
        ),
      ),
      h(
        "ul",
        { class: "plain-list" },
        report.tests.map((test) =>
          h(
            "li",
            {},
            h("span", { class: test.ok ? "state good" : "state bad" }, test.ok ? "ok" : "failed"),
            " ",
            h("code", {}, `${test.method} ${test.path}`),
            " ",
            h(
              "span",
              { class: "quiet" },
              `${test.status ?? "no answer"}${test.ok ? "" : `, wanted ${test.expectedStatus}`} in ${millis(test.durationMs)}${test.error ? `: ${test.error}` : ""}`,
            ),
          ),
        ),
      ),
    ),
  );
}
