// The base of every custom element here: it is given properties, and says what it shows.

import { show } from "./dom.js";

export class Part extends HTMLElement {
  #given = {};
  #life = new AbortController();
  #isDue = false;
  #isStarted = false;

  /** What the parent gives: any object. Giving it draws the part again. */
  set given(value) {
    this.#given = value;
    this.update();
  }

  get given() {
    return this.#given;
  }

  /** Ends when the part leaves the page. */
  get signal() {
    return this.#life.signal;
  }

  connectedCallback() {
    if (this.#isStarted) return; // only moved to another place
    this.#isStarted = true;
    this.#life = new AbortController();
    this.start();
    this.#draw();
  }

  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.#isStarted = false;
      this.#life.abort();
    });
  }

  /** Called each time the part enters the page: subscribe here. */
  start() {}

  /** Return the children: text, elements, arrays of them. */
  draw() {
    return [];
  }

  /** Called after each drawing. */
  drawn() {}

  /** Draw again soon; several calls become one. */
  update() {
    if (this.#isDue || !this.isConnected) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (this.isConnected) this.#draw();
    });
  }

  /** Call `handler` for events of `target` for as long as the part is on the page. */
  listen(target, type, handler) {
    target.addEventListener(type, handler, { signal: this.signal });
  }

  /** Call `work` every `ms`, while the page can be seen, for as long as the part is on it. */
  every(ms, work) {
    const timer = setInterval(() => {
      if (!document.hidden) work();
    }, ms);
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** Call `handler` with the part's width in pixels, now and when it changes; it is drawn again then. */
  watchWidth(handler) {
    let known = 0;
    const watcher = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width === known || !width) return;
      known = width;
      handler(width);
      this.update();
    });
    watcher.observe(this);
    this.signal.addEventListener("abort", () => watcher.disconnect());
  }

  #draw() {
    show(this, this.draw());
    this.drawn();
  }
}
