// Small line charts, drawn by hand: one line a version, the newest value in words beside them.

import { h } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 84;
const SPAN_MS = 300_000;

/**
 * One chart. lines: [{name, points: [{at, value}]}]; unit: written behind values.
 * A null value leaves a gap: no traffic is neither good nor bad.
 */
export function chart(title, lines, unit, now) {
  const values = lines.flatMap((line) => line.points.map((point) => point.value)).filter((value) => value !== null);
  const top = nice(Math.max(...values, 0));
  const said = lines.map((line) => `${line.name} ${spoken(latest(line), unit)}`).join(", ");
  return h(
    "figure", {},
    h(
      "figcaption", {},
      h("b", {}, title),
      h("span", {}, `to ${spoken(top, unit)}`),
      lines.map((line, index) => h("span", {}, key(index), `${line.name} `, h("span", { class: "number" }, spoken(latest(line), unit)))),
    ),
    h(
      "svg",
      { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${said}` },
      [0, 0.5, 1].map((part) => {
        const y = 2 + part * (HEIGHT - 4);
        return h("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y });
      }),
      lines.flatMap((line, index) => pieces(line.points).map((piece) => h("polyline", {
        class: `series-${index % 4}`,
        points: piece.map((point) => `${across(point.at, now)},${up(point.value, top)}`).join(" "),
      }))),
    ),
  );
}

/** The key of a line: the same stroke as in the chart. */
export function key(index) {
  return h("svg", { class: "key", viewBox: "0 0 22 10", "aria-hidden": "true" },
    h("line", { class: `series-${index % 4}`, x1: 0, x2: 22, y1: 5, y2: 5 }));
}

function latest(line) {
  return line.points.at(-1)?.value ?? null;
}

function spoken(value, unit) {
  if (value === null || value === undefined) return "–";
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${unit}`;
}

function across(at, now) {
  return (WIDTH * Math.max(0, 1 - (now - at) / SPAN_MS)).toFixed(1);
}

function up(value, top) {
  return (HEIGHT - 2 - (HEIGHT - 4) * (top ? value / top : 0)).toFixed(1);
}

/** Split points at gaps; a lone point becomes a short dash so that it can be seen. */
function pieces(points) {
  const found = [[]];
  for (const point of points) {
    if (point.value === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found
    .filter((piece) => piece.length)
    .map((piece) => (piece.length > 1 ? piece : [{ ...piece[0], at: piece[0].at - 2000 }, piece[0]]));
}

/** The next of 1, 2, 5 × 10ⁿ: axes that do not jump with every value. */
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
