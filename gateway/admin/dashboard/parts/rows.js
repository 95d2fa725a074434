// Many rows, of which only those in sight exist: the page scrolls, the rows follow.

import { h, same } from "../lib/dom.js";
import { Part } from "../lib/part.js";

const SPARE = 6; // rows drawn above and below what is in sight
const PHONE = matchMedia("(max-width: 48rem)");

/** Given: {items, columns: [{label, class}], rowOf(item), keyOf(item), height: {wide, phone}, label}. */
class Rows extends Part {
  #first = 0;
  #last = 0;
  /** Key -> item, as the rows that are there were drawn: who scrolls sees most of them again. */
  #drawn = new Map();

  start() {
    const moved = () => this.#look() && this.update();
    addEventListener("scroll", moved, { passive: true, signal: this.signal });
    addEventListener("resize", moved, { passive: true, signal: this.signal });
    PHONE.addEventListener("change", () => this.update(), { signal: this.signal });
  }

  get #height() {
    const { wide, phone } = this.given.height;
    return PHONE.matches ? phone : wide;
  }

  /** Find out which rows are in sight. Returns whether they are others than before. */
  #look() {
    const { items } = this.given;
    const body = this.querySelector(".rows-body");
    const above = Math.max(0, -(body ?? this).getBoundingClientRect().top);
    const first = Math.max(0, Math.floor(above / this.#height) - SPARE);
    const last = Math.min(items.length, Math.ceil((above + innerHeight) / this.#height) + SPARE);
    const isOther = first !== this.#first || last !== this.#last;
    this.#first = first;
    this.#last = last;
    return isOther;
  }

  draw() {
    this.#look();
    const { items, columns, label } = this.given;
    return h(
      "div",
      { class: "rows", role: "table", "aria-label": label, "aria-rowcount": items.length + 1 },
      h(
        "div",
        { class: "rows-head", role: "rowgroup" },
        h(
          "div",
          { class: "row", role: "row", "aria-rowindex": 1 },
          columns.map((column) => h("span", { role: "columnheader", class: column.class }, column.label)),
        ),
      ),
      h("div", { class: "rows-body", role: "rowgroup" }, this.#rows()),
    );
  }

  #rows() {
    const { items, columns, rowOf, keyOf } = this.given;
    const before = this.#drawn;
    const shown = items.slice(this.#first, this.#last);
    this.#drawn = new Map(shown.map((item) => [keyOf(item), item]));
    return shown.map((item, index) => {
      const key = keyOf(item);
      if (before.get(key) === item) return same("div", key);
      return h(
        "div",
        { class: "row", role: "row", "data-key": key, "aria-rowindex": this.#first + index + 2 },
        rowOf(item).map((cell, at) =>
          h("div", { role: "cell", class: columns[at].class, "data-label": columns[at].label }, cell),
        ),
      );
    });
  }

  /** Heights are set here: the policy lets no style attribute in. */
  drawn() {
    const body = this.querySelector(".rows-body");
    if (!body) return;
    const height = this.#height;
    body.style.height = `${this.given.items.length * height}px`;
    [...body.children].forEach((row, index) => {
      row.style.height = `${height}px`;
      row.style.transform = `translateY(${(this.#first + index) * height}px)`;
    });
  }
}

customElements.define("gw-rows", Rows);
