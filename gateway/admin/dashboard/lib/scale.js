// From values to places: linear, logarithmic and time scales, and the ticks people expect on them.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const TIME_STEPS = [
  ...[1, 2, 5, 10, 15, 30].map((n) => n * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 6, 12, 24].map((n) => n * HOUR),
];

/** Return a function from [low, high] to [from, to]. */
export function linear(low, high, from, to) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/** Return a function from [low, high], both above 0, to [from, to]; values outside go to the ends. */
export function logarithmic(low, high, from, to) {
  const place = linear(Math.log(low), Math.log(high), from, to);
  return (value) => place(Math.log(Math.min(high, Math.max(low, value))));
}

/** The next of 1, 2, 5 × 10ⁿ: axes that do not jump with every value. */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** The powers of ten in [1, high], each `every`-th, so that at most `most` remain. */
export function powers(high, most = 5) {
  const last = Math.floor(Math.log10(high));
  const every = Math.max(1, Math.ceil((last + 1) / most));
  return Array.from({ length: Math.floor(last / every) + 1 }, (_, index) => 10 ** (index * every));
}

/** Round local times in [from, to], at most one in `minGapMs`. */
export function timeTicks(from, to, minGapMs) {
  const step = TIME_STEPS.find((each) => each >= minGapMs) ?? 24 * HOUR;
  const zone = new Date(from).getTimezoneOffset() * MINUTE;
  const first = Math.ceil((from - zone) / step) * step + zone;
  const ticks = [];
  for (let at = first; at <= to; at += step) ticks.push(at);
  return ticks;
}
