// A list of the API that is read piece by piece.

import { get } from "./api.js";

const PIECE = 50;

/** Tells whoever listens: `change`. */
export class Pages extends EventTarget {
  items = [];
  /** Whether there is more. */
  hasMore = false;
  isReading = false;
  error = "";
  #next = null;
  #where = "";
  #number = 0;

  /** Begin anew with another list, or the same one. where: path with its query. */
  async begin(where) {
    this.#where = where;
    this.#number += 1;
    await this.#read(null, this.#number);
  }

  /** Read the next piece. */
  async more() {
    if (this.hasMore && !this.isReading) await this.#read(this.#next, this.#number);
  }

  async #read(after, number) {
    this.isReading = true;
    this.dispatchEvent(new Event("change"));
    const query = `limit=${PIECE}${after ? `&after=${encodeURIComponent(after)}` : ""}`;
    try {
      const answer = await get(`${this.#where}${this.#where.includes("?") ? "&" : "?"}${query}`);
      if (number !== this.#number) return; // another list was asked for meanwhile
      this.items = after ? [...this.items, ...answer.items] : answer.items;
      this.#next = answer.next;
      this.hasMore = answer.next !== null;
      this.error = "";
    } catch (error) {
      this.error = error.message;
    }
    this.isReading = false;
    this.dispatchEvent(new Event("change"));
  }
}
