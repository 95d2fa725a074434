// One rollout with everything stored about it: read once, followed while it is open.

import { all, get, path } from "../lib/api.js";
import { joined } from "../lib/series.js";
import { OPEN } from "../lib/words.js";
import { live } from "./live.js";

const LOOK_EVERY_MS = 2_000;

/** Tells whoever listens: `change`. */
export class RolloutStory extends EventTarget {
  rollout = null;
  windows = [];
  statistics = [];
  decisions = [];
  smoke = [];
  /** What the API said if the rollout cannot be shown. */
  error = "";
  /** Whether it said that there is no such rollout. */
  isMissing = false;
  seenAt = 0;
  #id;
  #reading = null;

  constructor(id) {
    super();
    this.#id = id;
  }

  get isOpen() {
    return this.rollout !== null && OPEN.includes(this.rollout.status);
  }

  /** Read now, and go on until `signal` aborts. */
  follow(signal) {
    const timer = setInterval(() => {
      if (!document.hidden && (this.isOpen || !this.rollout)) this.read();
    }, LOOK_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    live.addEventListener(
      "happened",
      (event) => {
        if (event.detail.deploymentId === this.#id) this.read();
      },
      { signal },
    );
    return this.read();
  }

  /** Read what is new. Calls that come while one runs wait for it. */
  read() {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #read() {
    const where = path("deployment", this.#id);
    const since = this.windows.at(-1)?.start;
    try {
      const rollout = await get(where);
      const [drawn, decisions, smoke] = await Promise.all([
        get(`${where}/windows${since ? `?since=${encodeURIComponent(since)}` : ""}`),
        all(`${where}/decisions`),
        get(`${where}/smoke`),
      ]);
      Object.assign(this, {
        rollout,
        decisions: decisions.reverse(),
        smoke: smoke.items,
        seenAt: Date.now(),
        error: "",
      });
      this.windows = joined(this.windows, drawn.windows, "start");
      this.statistics = since ? joined(this.statistics, drawn.statistics, "at") : drawn.statistics;
    } catch (error) {
      if (!this.rollout) this.error = error.message;
      this.isMissing = error.status === 404;
    }
    this.dispatchEvent(new Event("change"));
  }
}
