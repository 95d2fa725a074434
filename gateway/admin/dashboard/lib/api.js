// The admin API, as the page calls it. The token is handed over once, for a cookie no script can read.

const BASE = "/api/v1/admin/";
const PAGES = 20; // of 200: more than this of anything nobody scrolls through

/** Tells whoever listens that the session has ended: `ended`, with the reason as its detail. */
export const sessions = new EventTarget();

/** What the API refused, in its own words. */
export class Refused extends Error {
  constructor(status, problem) {
    const places = (problem.errors ?? []).map((bad) => `${bad.pointer}: ${bad.detail}`).join("; ");
    super([problem.detail ?? problem.title ?? `status ${status}`, places, problem.next].filter(Boolean).join(" — "));
    this.status = status;
  }
}

async function decoded(response) {
  if (response.status === 204) return null;
  const value = await response.json().catch(() => ({}));
  if (response.ok) return value;
  const refused = new Refused(response.status, value);
  if (response.status === 401) sessions.dispatchEvent(new CustomEvent("ended", { detail: refused.message }));
  throw refused;
}

/** Make a path from parts, each one segment: path("services", name, "stats"). */
export function path(...segments) {
  return segments.map(encodeURIComponent).join("/");
}

export async function get(where, signal) {
  const headers = { Accept: "application/json" };
  return decoded(await fetch(BASE + where, { headers, cache: "no-store", signal }));
}

/** Return every item of a list. */
export async function all(where, signal) {
  const items = [];
  let after = "";
  for (let page = 0; page < PAGES; page += 1) {
    const answer = await get(`${where}${where.includes("?") ? "&" : "?"}limit=200${after}`, signal);
    items.push(...answer.items);
    if (!answer.next) break;
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
  return items;
}

/** Change something: POST, PUT, PATCH or DELETE. */
export async function send(method, where, body = {}) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return decoded(await fetch(BASE + where, { method, headers, body: JSON.stringify(body) }));
}

/** Whether the browser's cookie opens a session. */
export async function hasSession() {
  const response = await fetch("/session", { cache: "no-store" });
  return (await response.json()).signedIn;
}

/** Begin a session with a token; from then on the browser's cookie says who asks. */
export async function signInWith(token) {
  const headers = { Accept: "application/json", Authorization: `Bearer ${token}` };
  const response = await fetch(BASE + "session", { method: "POST", headers });
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, value);
  return value;
}

/** End the session; one that has ended already is no failure. */
export async function endSession() {
  await fetch(BASE + "session", { method: "DELETE" }).catch(() => null);
}

/** Open the event stream after the event `last`; null: from now on. */
export async function openEvents(last, signal) {
  const headers = { Accept: "text/event-stream" };
  if (last !== null) headers["Last-Event-ID"] = last;
  const response = await fetch(BASE + "events", { headers, cache: "no-store", signal });
  if (!response.ok) await decoded(response);
  return response.body.getReader();
}
