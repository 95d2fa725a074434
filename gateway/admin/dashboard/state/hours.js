// The last hour of services, read when their rows come into sight and again now and then.

import { get, path } from "../lib/api.js";
import { hourOf } from "../lib/series.js";

const HOUR_MS = 3_600_000;
const SLOTS = 60;
const FRESH_MS = 30_000;
const AT_ONCE = 2;

/** Tells whoever listens that another hour is known: `change`. */
class Hours extends EventTarget {
  #known = new Map();
  #wanted = [];
  #running = 0;

  /** Buckets of one service, or null. */
  of(name) {
    return this.#known.get(name)?.buckets ?? null;
  }

  /** Read what is missing or old of these, those first that are not known at all. */
  want(names) {
    const now = Date.now();
    const isOld = (name) => now - (this.#known.get(name)?.at ?? 0) > FRESH_MS;
    this.#wanted = names.filter(isOld).sort((a, b) => this.#known.has(a) - this.#known.has(b));
    while (this.#running < AT_ONCE && this.#wanted.length) this.#read(this.#wanted.shift());
  }

  forget() {
    this.#known.clear();
    this.#wanted = [];
  }

  async #read(name) {
    const to = Date.now();
    this.#running += 1;
    this.#known.set(name, { at: to, buckets: this.of(name) });
    try {
      const stats = await get(path("services", name, "stats"));
      this.#known.set(name, { at: to, buckets: hourOf(stats, to - HOUR_MS, to, SLOTS) });
      this.dispatchEvent(new Event("change"));
    } catch {
      // asked again in half a minute; the row shows its numbers without it
    }
    this.#running -= 1;
    if (this.#wanted.length) this.#read(this.#wanted.shift());
  }
}

export const hours = new Hours();
