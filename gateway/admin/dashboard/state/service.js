// One service with its health, last hour, settings and releases.

import { get, path } from "../lib/api.js";
import { live } from "./live.js";

const LOOK_EVERY_MS = 4_000;
const RELEASES = 20;

/** Tells whoever listens: `change`. */
export class ServiceStory extends EventTarget {
  service = null;
  health = null;
  stats = null;
  versions = [];
  releases = [];
  drains = new Map();
  /** Defaults of a service's settings by name, from the API's own description. */
  defaults = null;
  /** What the API said if the service cannot be shown. */
  error = "";
  /** Whether it said that there is no such service. */
  isMissing = false;
  #name;
  #reading = null;

  constructor(name) {
    super();
    this.#name = name;
  }

  follow(signal) {
    const timer = setInterval(() => document.hidden || this.read(), LOOK_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    live.addEventListener(
      "happened",
      (event) => {
        if (event.detail.service === this.#name) this.read();
      },
      { signal },
    );
    this.#readDefaults();
    return this.read();
  }

  read() {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #read() {
    const where = path("services", this.#name);
    const ofService = `serviceName=${encodeURIComponent(this.#name)}`;
    try {
      const [service, health, stats, versions, releases] = await Promise.all([
        get(where),
        get(`${where}/health`),
        get(`${where}/stats`),
        get(`deployment/versions?limit=200&${ofService}`),
        get(`deployment?limit=${RELEASES}&${ofService}`),
      ]);
      Object.assign(this, {
        service,
        health,
        stats,
        versions: versions.items,
        releases: releases.items,
        error: "",
      });
      await this.#readDrains();
    } catch (error) {
      this.error = error.message;
      this.isMissing = error.status === 404;
    }
    this.dispatchEvent(new Event("change"));
  }

  async #readDrains() {
    const draining = this.versions.filter((version) => version.draining && !version.drained);
    const states = await Promise.all(
      draining.map((version) => get(`${path("deployment", "versions", version.id)}/drain`).catch(() => null)),
    );
    this.drains = new Map(draining.map((version, index) => [version.id, states[index]]));
  }

  async #readDefaults() {
    const response = await fetch("/openapi.json").catch(() => null);
    if (!response?.ok) return;
    const { components } = await response.json();
    const { properties } = components.schemas.ServiceSettings;
    this.defaults = Object.fromEntries(
      Object.entries(properties).map(([name, schema]) => [name, schema.default]),
    );
    this.dispatchEvent(new Event("change"));
  }
}
