// Starting a rollout: the settings of its strategy, and what they would have made of earlier releases.

import { send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { durationOf, numbersOf } from "../lib/parse.js";
import { Part } from "../lib/part.js";
import { go } from "../lib/router.js";
import { live } from "../state/live.js";
import { orWait } from "./approval-card.js";
import { dialogs, fieldOf } from "./dialog.js";

const WAIT_MS = 400;
const STRATEGIES = [
  ["canary", "Canary: step by step"],
  ["blue-green", "Blue-green: one switch"],
  ["immediate", "Immediate: all at once"],
];
const NUMBER = { kind: "number", step: "any", min: 0 };
const FIELDS = {
  steps: {
    name: "steps",
    label: "Steps",
    value: "10, 50, 100",
    hint: "Percent of traffic; the last is 100.",
  },
  stepInterval: { name: "stepInterval", label: "Step interval", value: "5m" },
  bakeTime: {
    name: "bakeTime",
    label: "Bake time",
    value: "5m",
    hint: "Watch at 100 % before the old version goes.",
  },
  errorThreshold: {
    ...NUMBER,
    name: "errorThreshold",
    label: "Error threshold (%)",
    value: "5",
    hint: "Up to this rate no step is held up.",
  },
  minRequests: { ...NUMBER, name: "minRequests", label: "Least requests a step", value: "20", step: 1 },
  maxLatencyRatio: {
    ...NUMBER,
    name: "maxLatencyRatio",
    label: "Latency ratio",
    value: "1.5",
    min: 1,
    hint: "How much slower its p95 may be.",
  },
  onBreach: {
    name: "onBreach",
    label: "When it is worse",
    options: [
      ["rollback", "roll back"],
      ["pause", "pause"],
    ],
  },
  autoPause: { name: "autoPause", label: "Wait for a person when undecided", kind: "checkbox", value: true },
  dryRun: { name: "dryRun", label: "Dry run: judge and record, never act", kind: "checkbox" },
};
const SHOWN = {
  canary: ["steps", "stepInterval", "errorThreshold", "minRequests"],
  "blue-green": ["bakeTime", "errorThreshold", "minRequests"],
  immediate: ["bakeTime", "errorThreshold", "minRequests"],
};
const MORE = ["maxLatencyRatio", "onBreach", "autoPause", "dryRun"];
const READ = {
  steps: (text) => numbersOf(text, "Steps"),
  stepInterval: (text) => durationOf(text, "Step interval"),
  bakeTime: (text) => durationOf(text, "Bake time"),
  errorThreshold: Number,
  minRequests: Number,
  maxLatencyRatio: Number,
  onBreach: String,
};

/** Ask what to start for a service of the overview, and start it. */
export async function start(service, version = null) {
  const versions = service.versions.filter((one) => one.id !== service.currentVersionId);
  const made = await dialogs.ask({
    title: `Start a rollout of ${service.name}`,
    text: "The new version is checked first; then it gets traffic as the strategy says, judged by the requests it serves.",
    confirm: "Start",
    wide: true,
    body: () => h("gw-start-form", { ".given": { service, versions, version } }),
    act: async (values, form) => {
      const body = {
        serviceName: service.name,
        toVersion: values.toVersion,
        strategy: values.strategy,
        config: configOf(values, form),
      };
      const answer = await send("POST", "deployment/start", body);
      await live.look();
      return answer;
    },
  });
  const started = await orWait(made);
  if (started) go(`/rollouts/${started.id}`);
}

/** The settings a filled form stands for. Throws what is wrong with one. */
function configOf(values, form) {
  const config = {};
  for (const [name, read] of Object.entries(READ)) if (values[name]) config[name] = read(values[name]);
  for (const name of ["autoPause", "dryRun"]) config[name] = form.elements[name].checked;
  return config;
}

/** Given: {service, versions, version}. */
class StartForm extends Part {
  #strategy = "canary";
  #said = "";
  #timer = 0;

  start() {
    this.addEventListener("input", () => this.#later(), { signal: this.signal });
    this.#later();
  }

  draw() {
    const { versions, version } = this.given;
    const options = versions.map((one) => [
      one.version,
      `${one.version}: ${one.healthStatus}, ${one.status}`,
    ]);
    const preferred =
      version?.version ?? versions.findLast((one) => one.status !== "deprecated")?.version ?? options[0]?.[0];
    return [
      h(
        "div",
        { class: "fields" },
        fieldOf({ name: "toVersion", label: "New version", options, value: preferred, required: true }),
        fieldOf({
          name: "strategy",
          label: "Strategy",
          options: STRATEGIES,
          value: this.#strategy,
          onchange: (change) => this.#choose(change.target.value),
        }),
      ),
      h(
        "div",
        { class: "fields" },
        SHOWN[this.#strategy].map((name) => fieldOf(FIELDS[name])),
      ),
      h(
        "details",
        { "data-key": "more" },
        h("summary", {}, "More settings"),
        h(
          "div",
          { class: "fields" },
          MORE.map((name) => fieldOf(FIELDS[name])),
        ),
      ),
      h("p", { class: "whatif-line", "aria-live": "polite", "data-key": "said" }, this.#said),
    ];
  }

  #choose(strategy) {
    this.#strategy = strategy;
    this.update();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), WAIT_MS);
  }

  async #ask() {
    const form = this.closest("form");
    if (!form) return;
    try {
      const values = Object.fromEntries(new FormData(form));
      const body = {
        serviceName: this.given.service.name,
        strategy: this.#strategy,
        config: configOf(values, form),
      };
      this.#said = sentence((await send("POST", "deployment/whatif", body)).items);
    } catch (error) {
      this.#said = error.message;
    }
    this.update();
  }
}

function sentence(items) {
  if (!items.length) return "No earlier release is stored to try these settings on.";
  const stopped = items.filter((item) => item.verdict === "abort").length;
  const releases = items.length === 1 ? "the last release" : `the last ${items.length} releases`;
  return `On ${releases} these settings would have stopped ${stopped || "none"}.`;
}

customElements.define("gw-start-form", StartForm);
