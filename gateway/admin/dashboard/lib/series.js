// From the server's windows to what charts draw. Nothing is counted here: a missing window is a gap, not a zero.

const GAP = 1.6; // windows further apart than this many of their own lengths leave a gap

/** The three kinds of lines there are, by what they pick of a version's window. */
export const PICKS = {
  rate: (part, seconds) => part.requests / seconds,
  errors: (part) => (part.requests ? (100 * part.failed) / part.requests : null),
  p50: (part) => part.p50Ms,
  p95: (part) => part.p95Ms,
  p99: (part) => part.p99Ms,
};

/** Windows of `GET deployment/:id/windows` as points of one side ("old" or "new"). */
export function rolloutPoints(windows, side, pick) {
  const points = [];
  let end = null;
  for (const window of windows) {
    const start = Date.parse(window.start);
    const at = start + 500 * window.seconds;
    const part = window[side];
    if (end !== null && start - end > 1000 * GAP * window.seconds) points.push({ at: end, value: null });
    points.push({ at, value: part ? pick(part, window.seconds) : null });
    end = start + 1000 * window.seconds;
  }
  return points;
}

/** Windows of `GET services/:name/stats` as points of one version; a window left out had no request. */
export function statsPoints(windows, pick) {
  const points = [];
  let end = null;
  for (const window of windows) {
    const start = Date.parse(window.start);
    if (end !== null && start - end > 500 * window.seconds)
      points.push({ at: (start + end) / 2, value: null });
    const part = { ...window, failed: window.errors };
    points.push({ at: start + 500 * window.seconds, value: pick(part, window.seconds) });
    end = start + 1000 * window.seconds;
  }
  return points;
}

/** New windows put behind those known: one that was still growing is replaced. */
export function joined(known, fresh, key) {
  if (!fresh.length) return known;
  const first = fresh[0][key];
  const kept = known.filter((one) => one[key] < first);
  return [...kept, ...fresh];
}

/** The nearest point with a value, or null if none is near. */
export function nearest(points, at, withinMs) {
  let best = null;
  for (const point of points) {
    if (point.value === null) continue;
    if (best === null || Math.abs(point.at - at) < Math.abs(best.at - at)) best = point;
  }
  return best && Math.abs(best.at - at) <= withinMs ? best : null;
}

/** Split points at gaps. */
export function pieces(points) {
  const found = [[]];
  for (const point of points) {
    if (point.value === null || point.value === undefined) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((piece) => piece.length);
}
