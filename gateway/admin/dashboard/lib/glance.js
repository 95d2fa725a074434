// A service of the overview, summed up: what a row of the home page says of it.

import { health } from "./words.js";

const MANY_ERRORS = 1; // percent

/** {service, current, serving, rate, errorPercent, p95Ms, health, breaker, needsLook, search}. */
export function glanceOf(service) {
  const { versions } = service;
  const serving = versions.filter((version) => version.share > 0);
  const weighted = versions.filter((version) => version.weight > 0);
  const rate = versions.reduce((sum, version) => sum + version.rate, 0);
  const failing = versions.reduce(
    (sum, version) => sum + (version.rate * (version.errorPercent ?? 0)) / 100,
    0,
  );
  const errorPercent = rate > 0 ? (100 * failing) / rate : null;
  const worst = ["unhealthy", "breaker open", "draining", "unknown", "healthy"].find((word) =>
    weighted.some((version) => health(version) === word),
  );
  const breaker = ["OPEN", "HALF_OPEN", "CLOSED"].find((word) =>
    weighted.some((version) => version.circuitState === word),
  );
  const word = weighted.length ? worst : "no traffic";
  return {
    service,
    name: service.name,
    current: versions.find((version) => version.id === service.currentVersionId)?.version ?? null,
    serving,
    rate,
    errorPercent,
    p95Ms: serving.some((version) => version.p95Ms !== null)
      ? Math.max(...serving.map((version) => version.p95Ms ?? 0))
      : null,
    health: word,
    breaker: (breaker ?? "–").toLowerCase().replace("_", " "),
    needsLook:
      service.paused ||
      ["unhealthy", "breaker open"].includes(word) ||
      service.deployment?.status === "paused" ||
      (errorPercent ?? 0) >= MANY_ERRORS,
    search: [
      service.name,
      ...versions.map((version) => version.version),
      ...service.routes.map((route) => route.path),
    ]
      .join(" ")
      .toLowerCase(),
  };
}

const ORDERS = {
  name: (a, b) => a.name.localeCompare(b.name),
  rate: (a, b) => b.rate - a.rate,
  errors: (a, b) => (b.errorPercent ?? -1) - (a.errorPercent ?? -1),
  p95: (a, b) => (b.p95Ms ?? -1) - (a.p95Ms ?? -1),
};
const FILTERS = {
  all: () => true,
  look: (glance) => glance.needsLook,
  rollout: (glance) => glance.service.deployment !== null,
  quiet: (glance) => glance.rate === 0,
};

/** Those that match what was typed and chosen, in the order that was chosen. */
export function chosen(glances, { search, filter, order }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return glances
    .filter(
      (glance) =>
        (FILTERS[filter] ?? FILTERS.all)(glance) && words.every((word) => glance.search.includes(word)),
    )
    .sort((a, b) => (ORDERS[order] ?? ORDERS.name)(a, b) || ORDERS.name(a, b));
}
