// Totals in, rates out: each look at the counters is compared with the one before it.

const KEPT = 150; // looks: five minutes at one every two seconds

/** Remembers, by version, how requests, errors and latency went. */
export class Rates {
  #last = new Map();
  series = new Map();

  /** Take one answer of services/NAME/stats. */
  take(stats) {
    const at = Date.parse(stats.at);
    for (const version of stats.versions) {
      const before = this.#last.get(version.versionId);
      this.#last.set(version.versionId, { at, version });
      if (!before || at <= before.at) continue;
      const points = this.series.get(version.versionId) ?? [];
      points.push(between(before, { at, version }));
      this.series.set(version.versionId, points.slice(-KEPT));
    }
  }

  /** The points of one version, oldest first. */
  of(versionId) {
    return this.series.get(versionId) ?? [];
  }
}

function between(before, after) {
  const seconds = (after.at - before.at) / 1000;
  const requests = Math.max(0, after.version.total - before.version.total);
  const errors = Math.max(0, after.version.errors - before.version.errors);
  return {
    at: after.at,
    rate: requests / seconds,
    errors: requests ? (100 * errors) / requests : null,
    p95: quantile(before.version.latency, after.version.latency, 0.95),
  };
}

/** The q-quantile, in ms, of what was added to a histogram of [upper bound in µs, count]; null if nothing was. */
export function quantile(before, after, q) {
  const old = new Map(before);
  const added = after.map(([edge, count]) => [edge, Math.max(0, count - (old.get(edge) ?? 0))]);
  const total = added.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return null;
  let left = q * total;
  for (const [edge, count] of added.sort((a, b) => a[0] - b[0])) {
    left -= count;
    if (left <= 0) return edge / 1000;
  }
  return null;
}
