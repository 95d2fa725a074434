// A line chart: one line a version on one scale, a time axis, marks, and the values under the pointer.
// Charts that share a `cursor` point at the same moment.

import { h, show } from "../lib/dom.js";
import { axisTime, time } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { linear, niceTop, timeTicks } from "../lib/scale.js";
import { nearest, pieces } from "../lib/series.js";

export const MARGIN = { top: 18, right: 10, bottom: 22, left: 52 };
const HEIGHT = 150;
const TICK_PX = 86;
const LABEL_PX = 38;
const DASH_MS = 1500;

/** The moment that several charts point at: `at`, null while nothing is pointed at. */
export class Cursor extends EventTarget {
  at = null;

  set(at) {
    if (at === this.at) return;
    this.at = at;
    this.dispatchEvent(new Event("moved"));
  }
}

/**
 * Given: {title, lines: [{name, tone, points: [{at, value}]}], said, from, to, marks: [{at, label, tone}], cursor}.
 * said: a value as text. A null value leaves a gap: no traffic is neither good nor bad.
 */
class Chart extends Part {
  #width = 0;
  #across = null;
  #up = null;

  start() {
    this.watchWidth((width) => (this.#width = width));
    this.listen(this.given.cursor, "moved", () => this.#point());
  }

  draw() {
    const { title, lines, said } = this.given;
    const latest = lines
      .map((line) => `${line.name} ${said(this.#valueAt(line, this.given.to)?.value ?? null)}`)
      .join(", ");
    return h(
      "figure",
      {},
      h(
        "figcaption",
        {},
        h("b", {}, title),
        h("span", { class: "legend", "data-key": "legend" }, this.#legend()),
      ),
      h(
        "div",
        { class: "frame" },
        this.#width ? this.#drawing(`${title}: ${latest || "nothing yet"}`) : null,
      ),
    );
  }

  #drawing(label) {
    const { lines, from, to, marks } = this.given;
    const top = niceTop(
      Math.max(0, ...lines.flatMap((line) => line.points.map((point) => point.value ?? 0))),
    );
    const across = linear(from, to, MARGIN.left, this.#width - MARGIN.right);
    const up = linear(0, top, HEIGHT - MARGIN.bottom, MARGIN.top);
    this.#across = across;
    this.#up = up;
    const isEmpty = !lines.some((line) => line.points.some((point) => point.value !== null));
    return h(
      "svg",
      {
        class: "chart",
        viewBox: `0 0 ${this.#width} ${HEIGHT}`,
        width: this.#width,
        height: HEIGHT,
        role: "img",
        tabindex: 0,
        "aria-label": label,
        onpointermove: (move) => this.#follow(move),
        onpointerdown: (move) => this.#follow(move),
        onpointerleave: () => this.given.cursor.set(null),
        onkeydown: (key) => this.#walk(key),
      },
      this.#valueAxis(top, up),
      timeAxis(from, to, across, this.#width, HEIGHT),
      marksOf(marks ?? [], across, from, to),
      lines.flatMap((line) =>
        pieces(line.points).map((piece) =>
          h("polyline", { class: `series-${line.tone}`, points: path(piece, across, up) }),
        ),
      ),
      isEmpty
        ? h(
            "text",
            { class: "none", x: (this.#width + MARGIN.left) / 2, y: HEIGHT / 2, "text-anchor": "middle" },
            "no requests in this time",
          )
        : null,
      h("g", { class: "cursor", "data-key": "cursor" }, this.#cursorParts()),
    );
  }

  #valueAxis(top, up) {
    const right = this.#width - MARGIN.right;
    return [0, top / 2, top].map((value) => [
      h("line", { class: "grid", x1: MARGIN.left, x2: right, y1: up(value), y2: up(value) }),
      h(
        "text",
        { class: "tick", x: MARGIN.left - 6, y: up(value) + 4, "text-anchor": "end" },
        this.given.said(value).replace(/\.0(?=\D|$)/, ""),
      ),
    ]);
  }

  #legend() {
    const { lines, said, cursor } = this.given;
    const isPointed = cursor.at !== null;
    return [
      isPointed ? h("span", { class: "number at" }, time(new Date(cursor.at).toISOString())) : null,
      lines.map((line) =>
        h(
          "span",
          {},
          key(line.tone),
          `${line.name} `,
          h(
            "b",
            { class: "number" },
            said(this.#valueAt(line, isPointed ? cursor.at : this.given.to)?.value ?? null),
          ),
        ),
      ),
    ];
  }

  #valueAt(line, at) {
    const { from, to } = this.given;
    return nearest(line.points, at, Math.max(12_000, (to - from) / 30));
  }

  #cursorParts() {
    const { cursor, lines } = this.given;
    if (cursor.at === null || !this.#across) return [];
    const x = this.#across(cursor.at);
    return [
      h("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      lines.map((line) => {
        const point = this.#valueAt(line, cursor.at);
        return point
          ? h("circle", {
              class: `dot-${line.tone}`,
              cx: this.#across(point.at),
              cy: this.#up(point.value),
              r: 3.5,
            })
          : null;
      }),
    ];
  }

  #point() {
    const group = this.querySelector("g.cursor");
    if (group) show(group, this.#cursorParts());
    show(this.querySelector(".legend"), this.#legend());
  }

  #follow(move) {
    const { from, to, cursor } = this.given;
    const x = move.clientX - move.currentTarget.getBoundingClientRect().left;
    const at = from + ((x - MARGIN.left) / (this.#width - MARGIN.left - MARGIN.right)) * (to - from);
    cursor.set(Math.min(to, Math.max(from, at)));
  }

  /** Arrow keys go from window to window. */
  #walk(pressed) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const { lines, cursor, to } = this.given;
    if (pressed.key === "Escape") return cursor.set(null);
    if (!(pressed.key in steps)) return;
    pressed.preventDefault();
    const times = [
      ...new Set(
        lines.flatMap((line) => line.points.filter((point) => point.value !== null).map((point) => point.at)),
      ),
    ].sort((a, b) => a - b);
    if (!times.length) return;
    const now = cursor.at ?? to;
    const index = times.findLastIndex((at) => at <= now + 1);
    cursor.set(times[Math.min(times.length - 1, Math.max(0, index + steps[pressed.key]))]);
  }
}

/** The key of a line: the same stroke as in the chart. */
export function key(tone) {
  return h(
    "svg",
    { class: "key", viewBox: "0 0 22 10", "aria-hidden": "true" },
    h("line", { class: `series-${tone}`, x1: 0, x2: 22, y1: 5, y2: 5 }),
  );
}

/** Ticks with the time of day below a drawing. */
export function timeAxis(from, to, across, width, height) {
  const ticks = timeTicks(
    from,
    to,
    ((to - from) * TICK_PX) / Math.max(1, width - MARGIN.left - MARGIN.right),
  );
  return ticks.map((at) => [
    h("line", {
      class: "notch",
      x1: across(at),
      x2: across(at),
      y1: height - MARGIN.bottom,
      y2: height - MARGIN.bottom + 4,
    }),
    across(at) > width - 30
      ? null
      : h(
          "text",
          { class: "tick", x: across(at), y: height - 5, "text-anchor": "middle" },
          axisTime(at, to - from),
        ),
  ]);
}

/** Lines where something changed; labels that would overlap are left out, their lines are not. */
export function marksOf(marks, across, from, to, height = HEIGHT) {
  let free = 0;
  return marks
    .filter((mark) => mark.at >= from && mark.at <= to)
    .map((mark) => {
      const x = across(mark.at);
      const hasRoom = x >= free;
      const isLast = x > across(to) - LABEL_PX;
      if (hasRoom) free = x + LABEL_PX;
      return h(
        "g",
        { class: `mark ${mark.tone ?? ""}` },
        h("title", {}, mark.title ?? mark.label),
        h("line", { x1: x, x2: x, y1: MARGIN.top - 4, y2: height - MARGIN.bottom }),
        hasRoom
          ? h(
              "text",
              { x: isLast ? x - 3 : x + 3, y: MARGIN.top - 6, "text-anchor": isLast ? "end" : "start" },
              mark.label,
            )
          : null,
      );
    });
}

/** Points of a polyline; a lone point becomes a short dash, so that it can be seen. */
function path(piece, across, up) {
  const drawn =
    piece.length > 1
      ? piece
      : [
          { ...piece[0], at: piece[0].at - DASH_MS },
          { ...piece[0], at: piece[0].at + DASH_MS },
        ];
  return drawn.map((point) => `${across(point.at).toFixed(1)},${up(point.value).toFixed(1)}`).join(" ");
}

customElements.define("gw-chart", Chart);
