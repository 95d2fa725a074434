// Server-Sent Events over fetch, so that a stream that breaks is opened again after the last event seen.

import { Refused, openEvents } from "./api.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 4_000; // it is asked on loopback or by few: no crowd comes back at once

/**
 * Follow the event stream until `signal` aborts: onEvent for each event, onState(true | false) as it comes and goes.
 * A refused session ends it.
 */
export async function follow(onEvent, onState, signal) {
  let last = null;
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const reader = await openEvents(last, signal);
      onState(true);
      wait = FIRST_WAIT_MS;
      for await (const event of eventsOf(reader)) {
        last = event.id ?? last;
        onEvent(event.data);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [401, 403].includes(error.status)) return;
    }
    onState(false);
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

async function* eventsOf(reader) {
  const text = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + text.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event) yield event;
    }
  }
}

function eventOf(block) {
  const lines = block.split("\n");
  const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  return field("data") ? { id: field("id"), data: JSON.parse(field("data")) } : null;
}
