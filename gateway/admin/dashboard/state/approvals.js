// What waits for a second person, where the gateway asks for one.

import { get } from "../lib/api.js";

const LOOK_EVERY_MS = 4_000;

/** Tells whoever listens: `change`. */
class Approvals extends EventTarget {
  items = [];

  /** Read now, and again and again until `signal` aborts. */
  follow(signal) {
    const timer = setInterval(() => document.hidden || this.read(), LOOK_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    return this.read();
  }

  async read() {
    const found = await get("approvals?state=pending").catch(() => null);
    if (found === null) return; // the page says by itself that nothing answers
    this.items = found.items;
    this.dispatchEvent(new Event("change"));
  }
}

export const approvals = new Approvals();
