// How the judge's statistic went: on a log scale, with the limits it had to reach, and its present value as a meter.

import { h, show } from "../lib/dom.js";
import { odds, time } from "../lib/format.js";
import { Part } from "../lib/part.js";
import { linear, logarithmic, powers } from "../lib/scale.js";
import { verdictWord } from "../lib/words.js";
import { MARGIN, marksOf, timeAxis } from "./chart.js";
import { effectOf, meter } from "./meter.js";

const HEIGHT = 190;
const BEYOND = 5; // the scale goes so many times beyond the highest limit

/** Given: {points, config, isOpen, from, to, marks, cursor}; points as in `statistics` of the windows. */
class Evidence extends Part {
  #width = 0;
  #across = null;

  start() {
    this.watchWidth((width) => (this.#width = width));
    this.listen(this.given.cursor, "moved", () => this.#point());
  }

  draw() {
    const { points, config } = this.given;
    const now = points.at(-1);
    if (!now)
      return h(
        "p",
        { class: "quiet" },
        "No verdict yet: the judge begins with the first requests of the new version.",
      );
    return [
      meter(now, config),
      h("p", { class: "sentence", "data-key": "sentence" }, this.#sentence()),
      h("div", { class: "frame" }, this.#width ? this.#drawing(points) : null),
    ];
  }

  #sentence() {
    const { points, cursor, config } = this.given;
    const seen =
      cursor.at === null
        ? points.at(-1)
        : (points.findLast((point) => Date.parse(point.at) <= cursor.at) ?? points[0]);
    return [
      h(
        "span",
        { class: "number" },
        cursor.at !== null ? time(seen.at) : this.given.isOpen ? "Now" : "In the end",
      ),
      ` at ${seen.percent} %: `,
      h("b", {}, `${odds(seen.statistic)} to 1`),
      ` that the new version is worse; ${effectOf(seen.gate, config)} at ${odds(seen.limit)} to 1 (${verdictWord(seen.verdict)}).`,
    ];
  }

  #drawing(points) {
    const { from, to, marks } = this.given;
    const top = BEYOND * Math.max(...points.map((point) => point.limit));
    const across = linear(from, to, MARGIN.left, this.#width - MARGIN.right);
    const up = logarithmic(1, top, HEIGHT - MARGIN.bottom, MARGIN.top);
    this.#across = across;
    const placed = points.map((point) => ({ ...point, x: across(Date.parse(point.at)) }));
    const last = placed.at(-1);
    const right = this.#width - MARGIN.right;
    return h(
      "svg",
      {
        class: "chart evidence",
        viewBox: `0 0 ${this.#width} ${HEIGHT}`,
        width: this.#width,
        height: HEIGHT,
        role: "img",
        "aria-label": `Evidence over time, ${time(points[0].at)} to ${time(points.at(-1).at)}: highest ${odds(Math.max(...points.map((point) => point.statistic)))} to 1`,
        onpointermove: (move) => this.#follow(move),
        onpointerdown: (move) => this.#follow(move),
        onpointerleave: () => this.given.cursor.set(null),
      },
      h("rect", {
        class: "zone",
        x: MARGIN.left,
        y: MARGIN.top,
        width: right - MARGIN.left,
        height: Math.max(0, up(last.limit) - MARGIN.top),
      }),
      powers(top).map((value) => [
        h("line", { class: "grid", x1: MARGIN.left, x2: right, y1: up(value), y2: up(value) }),
        h(
          "text",
          { class: "tick", x: MARGIN.left - 6, y: up(value) + 4, "text-anchor": "end" },
          value === 1 ? "1" : short(value),
        ),
      ]),
      timeAxis(from, to, across, this.#width, HEIGHT),
      marksOf(marks, across, from, to, HEIGHT),
      h("path", { class: "passes", d: stairs(placed, (point) => up(point.advanceBelow), right) }),
      h("path", { class: "limit", d: stairs(placed, (point) => up(point.limit), right) }),
      h(
        "text",
        { class: "limit", x: right - 4, y: up(last.limit) - 5, "text-anchor": "end" },
        `${effectOf(last.gate, this.given.config)} above ${odds(last.limit)}`,
      ),
      h(
        "text",
        { class: "passes", x: right - 4, y: up(last.advanceBelow) + 13, "text-anchor": "end" },
        `a step passes below ${odds(last.advanceBelow)}`,
      ),
      h("polyline", {
        class: "statistic",
        points: placed.map((point) => `${point.x.toFixed(1)},${up(point.statistic).toFixed(1)}`).join(" "),
      }),
      h("circle", {
        class: last.statistic >= last.limit ? "last over" : "last",
        cx: last.x,
        cy: up(last.statistic),
        r: 4,
      }),
      h("g", { class: "cursor", "data-key": "cursor" }, this.#cursorParts()),
    );
  }

  #cursorParts() {
    const { at } = this.given.cursor;
    if (at === null || !this.#across) return [];
    const x = this.#across(at);
    return h("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
  }

  #point() {
    const group = this.querySelector("g.cursor");
    if (group) show(group, this.#cursorParts());
    const sentence = this.querySelector(".sentence");
    if (sentence) show(sentence, this.#sentence());
  }

  #follow(move) {
    const { from, to, cursor } = this.given;
    const x = move.clientX - move.currentTarget.getBoundingClientRect().left;
    const at = from + ((x - MARGIN.left) / (this.#width - MARGIN.left - MARGIN.right)) * (to - from);
    cursor.set(Math.min(to, Math.max(from, at)));
  }
}

/** A line that stays at each point's value until the next point. */
function stairs(points, heightOf, right) {
  const [first, ...rest] = points;
  const steps = rest.map((point) => `H${point.x.toFixed(1)}V${heightOf(point).toFixed(1)}`).join("");
  return `M${MARGIN.left},${heightOf(first).toFixed(1)}${steps}H${right}`;
}

function short(value) {
  if (value >= 1e6) return `10^${Math.round(Math.log10(value))}`;
  return value >= 1000 ? `${value / 1000}k` : String(value);
}

customElements.define("gw-evidence", Evidence);
