// What is known of the gateway now: read from the API, kept fresh by its event stream, and honest about its age.

import { Refused, get } from "../lib/api.js";
import { follow } from "../lib/stream.js";

const LOOK_EVERY_MS = 2_000; // rates are of the last ten seconds and come with no event
const STALE_AFTER_MS = 6_000; // three looks without an answer
const EVENTS_KEPT = 100;
const CALM_MS = 250; // events come in crowds: one look is enough for all of them

/** Tells whoever listens: `change` after each look, `happened` for each event (its detail), `state` when the mode changes. */
class Live extends EventTarget {
  overview = null;
  gateway = null;
  events = [];
  /** When the gateway last answered; 0: not yet. */
  seenAt = 0;
  #streaming = false;
  #life = null;
  #looking = null;
  #again = false;
  #soon = 0;
  #mode = "";

  /** "live" with the event stream, "polling" without, "stale" when nothing answers, "" before the first look. */
  get mode() {
    if (!this.seenAt) return "";
    if (Date.now() - this.seenAt > STALE_AFTER_MS) return "stale";
    return this.#streaming ? "live" : "polling";
  }

  get services() {
    return this.overview?.items ?? [];
  }

  service(name) {
    return this.services.find((one) => one.name === name) ?? null;
  }

  begin() {
    this.stop();
    this.#life = new AbortController();
    const { signal } = this.#life;
    follow(
      (event) => this.#happened(event),
      (isOn) => this.#streamed(isOn),
      signal,
    );
    const timer = setInterval(() => this.#tick(), LOOK_EVERY_MS);
    const seen = () => document.hidden || this.look();
    document.addEventListener("visibilitychange", seen, { signal });
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#readEvents(signal);
    return this.look();
  }

  stop() {
    this.#life?.abort();
    this.#life = null;
    clearTimeout(this.#soon);
    this.#soon = 0;
    Object.assign(this, { overview: null, gateway: null, events: [], seenAt: 0 });
    this.#streaming = false;
  }

  /** Read everything again, now. Calls that come while one runs become one more. */
  async look() {
    if (this.#looking) {
      this.#again = true;
      return this.#looking;
    }
    this.#looking = this.#read().finally(() => {
      this.#looking = null;
      if (!this.#again) return;
      this.#again = false;
      this.look();
    });
    return this.#looking;
  }

  async #read() {
    const signal = this.#life?.signal;
    if (!signal) return;
    try {
      const [overview, gateway] = await Promise.all([get("overview", signal), get("gateway", signal)]);
      if (signal.aborted) return; // somebody signed out meanwhile
      Object.assign(this, { overview, gateway, seenAt: Date.now() });
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return;
    }
    this.#tell();
  }

  async #readEvents(signal) {
    const found = await get(`events?limit=${EVENTS_KEPT}`, signal).catch(() => ({ items: [] }));
    const known = new Set(this.events.map((event) => event.id));
    this.events = [...this.events, ...found.items.filter((event) => !known.has(event.id)).reverse()].slice(
      0,
      EVENTS_KEPT,
    );
    this.dispatchEvent(new Event("change"));
  }

  #tick() {
    if (!document.hidden) this.look();
    this.#tell();
  }

  #happened(event) {
    if (this.events.some((known) => known.id === event.id)) return;
    this.events = [event, ...this.events].slice(0, EVENTS_KEPT);
    this.dispatchEvent(new CustomEvent("happened", { detail: event }));
    this.#lookSoon();
  }

  #lookSoon() {
    this.#soon ||= setTimeout(() => {
      this.#soon = 0;
      if (!document.hidden) this.look();
    }, CALM_MS);
  }

  #streamed(isOn) {
    this.#streaming = isOn;
    this.#tell();
  }

  #tell() {
    if (this.mode === this.#mode) return;
    this.#mode = this.mode;
    this.dispatchEvent(new Event("state"));
  }
}

export const live = new Live();
