// The admin API, as the page calls it. The token is handed over once, for a cookie no script can read.

const BASE = "/api/v1/admin/";

export class Refused extends Error {
  constructor(status, problem) {
    const places = (problem.errors ?? []).map((bad) => `${bad.pointer}: ${bad.detail}`).join("; ");
    super([problem.detail ?? problem.title ?? `status ${status}`, places].filter(Boolean).join(" — "));
    this.status = status;
  }
}

function fields(more = {}) {
  return { Accept: "application/json", ...more };
}

/** Begin a session with a token; from then on the browser's cookie says who asks. */
export async function signInWith(token) {
  const headers = fields({ Authorization: `Bearer ${token}` });
  return decoded(await fetch(BASE + "session", { method: "POST", headers }));
}

/** End the session; one that has ended already is no failure. */
export async function endSession() {
  await fetch(BASE + "session", { method: "DELETE", headers: fields() }).catch(() => null);
}

async function decoded(response) {
  if (response.status === 204) return null;
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, value);
  return value;
}

export async function get(path) {
  return decoded(await fetch(BASE + path, { headers: fields(), cache: "no-store" }));
}

export async function post(path, body = {}) {
  const headers = fields({ "Content-Type": "application/json" });
  return decoded(await fetch(BASE + path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/**
 * Follow the event stream for good: onEvent for each event, onState(true | false) as it comes and goes.
 * A stream that breaks is opened again after the last event seen; a refused token ends it.
 */
export async function follow(onEvent, onState, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      const more = last === null ? { Accept: "text/event-stream" } : { Accept: "text/event-stream", "Last-Event-ID": last };
      const response = await fetch(BASE + "events", { headers: fields(more), cache: "no-store", signal });
      if (!response.ok) await decoded(response);
      onState(true);
      for await (const event of events(response.body.getReader())) {
        last = event.id;
        onEvent(event.data);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return onState(false, error);
    }
    onState(false);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function* events(reader) {
  const text = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + text.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (name) => lines.find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
      if (field("data")) yield { id: field("id"), data: JSON.parse(field("data")) };
    }
  }
}
