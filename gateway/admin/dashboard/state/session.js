// Who is signed in. The cookie is the browser's; no script reads it.

import { endSession, get, hasSession, sessions, signInWith } from "../lib/api.js";
import { may } from "../lib/words.js";

/** Tells whoever listens that somebody came or went: `change`. */
class Session extends EventTarget {
  /** {name, role}, or null while nobody is signed in. */
  you = null;
  /** Why nobody is, in a sentence. */
  why = "";
  /** False until it is known whether a session is there. */
  isKnown = false;

  constructor() {
    super();
    sessions.addEventListener("ended", () => {
      if (this.you)
        this.#leave(
          "The session has ended: the token expired or was revoked, 12 hours are over, or the gateway was replaced. Sign in again.",
        );
    });
  }

  /** Whether whoever is signed in may do what needs this role. */
  may(role) {
    return this.you !== null && may(this.you.role, role);
  }

  /** Go on with the session of the browser's cookie, if there is one. */
  async resume() {
    try {
      if (!(await hasSession())) return this.#leave("");
      this.#enter((await get("gateway")).you);
    } catch (error) {
      this.#leave(`The gateway does not answer: ${error.message}. Load the page again in a moment.`);
    }
  }

  /** Sign in with a token. Throws what the API refused. */
  async begin(token) {
    this.#enter(await signInWith(token));
  }

  async end() {
    await endSession();
    this.#leave("");
  }

  #enter(you) {
    Object.assign(this, { you, why: "", isKnown: true });
    this.dispatchEvent(new Event("change"));
  }

  #leave(why) {
    Object.assign(this, { you: null, why, isKnown: true });
    this.dispatchEvent(new Event("change"));
  }
}

export const session = new Session();
