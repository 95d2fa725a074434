// The last hour of every service, in minutes: read while rows are shown, and seldom, for it changes slowly.

import { get } from "../lib/api.js";

const LOOK_EVERY_MS = 20_000;
const MINUTE_S = 60;

/** Tells whoever listens that other hours are known: `change`. */
class Hours extends EventTarget {
  #known = new Map();

  /** Minutes of one service, oldest first: [{rate, failed}]; null while they are not known. */
  of(name) {
    return this.#known.get(name) ?? null;
  }

  /** Read now, and again and again until `signal` aborts. */
  follow(signal) {
    const timer = setInterval(() => document.hidden || this.#read(), LOOK_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    return this.#read();
  }

  forget() {
    this.#known.clear();
  }

  async #read() {
    const found = await get("overview?hour=true").catch(() => null);
    if (found === null) return; // rows show their numbers without it
    this.#known = new Map(found.items.map((service) => [service.name, minutesOf(service)]));
    this.dispatchEvent(new Event("change"));
  }
}

function minutesOf(service) {
  return (service.hour ?? []).map((answers, index) => ({
    rate: answers / MINUTE_S,
    failed: service.hourErrors[index],
  }));
}

export const hours = new Hours();
