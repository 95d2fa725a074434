// The page: reads the API, shows it, asks before it changes anything.

import { Refused, endSession, follow, get, post, signInWith } from "./api.js";
import { h, show } from "./dom.js";
import { Rates } from "./rates.js";
import * as views from "./views.js";
import { time } from "./words.js";

const LOOK_EVERY_MS = 2000; // statistics; everything else also comes with the events
const OPEN_AT_FIRST = 4; // services whose charts are drawn without being asked for
const OPEN = ["pending", "testing", "rolling", "paused"];
const EVENTS_KEPT = 100;
const SIGNED_IN = "gateway-signed-in"; // no secret: whether it is worth asking who we are

const $ = (id) => document.getElementById(id);
const state = {
  gateway: null, services: [], versions: [], deployments: [], events: [], audit: [],
  opened: null, rates: new Rates(), seenAt: 0, streaming: false,
};
let session = null; // AbortController of the signed-in session
let refreshing = null;
let again = false;

// --- reading ------------------------------------------------------------------------------------

async function all(path) {
  const items = [];
  let after = "";
  for (let page = 0; page < 20; page += 1) {
    const answer = await get(path + (path.includes("?") ? "&" : "?") + "limit=200" + after);
    items.push(...answer.items);
    if (!answer.next) break;
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
  return items;
}

/** Read everything but statistics. Calls that come while one runs become one more. */
async function refresh() {
  if (refreshing) {
    again = true;
    return refreshing;
  }
  refreshing = read().finally(() => {
    refreshing = null;
    if (again) {
      again = false;
      refresh().catch(failed);
    }
  });
  return refreshing;
}

async function read() {
  const [gateway, services, versions, deployments] = await Promise.all([
    get("gateway"), all("services"), all("deployment/versions"), get("deployment?limit=50"),
  ]);
  Object.assign(state, { gateway, services, versions, deployments: deployments.items, seenAt: Date.now() });
  state.opened ??= new Set(services.slice(0, OPEN_AT_FIRST).map((one) => one.name));
  if (views.may(gateway.you.role, "admin")) state.audit = (await get("audit?limit=50")).items;
  draw();
}

async function readStats() {
  const names = state.services.map((one) => one.name).filter((name) => state.opened?.has(name));
  const answers = await Promise.all(names.map((name) => get(`services/${encodeURIComponent(name)}/stats`)));
  for (const stats of answers) state.rates.take(stats);
}

async function look() {
  if (document.hidden) return;
  await readStats();
  await refresh();
}

// --- showing ------------------------------------------------------------------------------------

function draw() {
  if (!session || !state.gateway) return;
  const now = Date.now();
  const { role } = state.gateway.you;
  const open = state.deployments.filter((one) => OPEN.includes(one.status));
  document.title = open.length ? `${open[0].serviceName} ${open[0].trafficPercent} % – gateway` : "gateway";
  show($("rollouts"), open.length
    ? open.map((one) => views.rollout(one, role, now, state.seenAt))
    : [h("p", { class: "card quiet" }, "None. All services are on one version.")]);
  show($("services"), state.services.length
    ? state.services.map((one) => views.service(one, versionsOf(one), state.opened.has(one.name), state.rates, role, now))
    : [h("p", { class: "card quiet" }, "No services yet.")]);
  show($("history"), [views.history(state.deployments.filter((one) => !OPEN.includes(one.status)))]);
  show($("events"), [views.events(state.events)]);
  $("audit-section").hidden = !views.may(role, "admin");
  show($("audit"), [views.audit(state.audit)]);
  $("whoami").textContent = `${state.gateway.you.name} (${role}) · release ${state.gateway.release}, epoch ${state.gateway.epoch}, ${state.gateway.workers.length} workers`;
  drawState(now);
}

/** A service's versions, oldest first, retired ones last: an order that does not change under the reader's eyes. */
function versionsOf(service) {
  const retired = (version) => version.status === "deprecated";
  return state.versions
    .filter((version) => version.serviceId === service.id)
    .sort((a, b) => retired(a) - retired(b) || Date.parse(a.createdAt) - Date.parse(b.createdAt));
}

function drawState(now) {
  const isLive = state.streaming && now - state.seenAt < 10_000;
  const live = $("live");
  live.className = isLive ? "on" : "off";
  const text = isLive ? "live" : `not live: last seen ${state.seenAt ? time(new Date(state.seenAt).toISOString()) : "never"}`;
  if (live.textContent !== text) live.textContent = text;
  if (state.gateway?.frozen) notice("Frozen: starts are refused and advances held. Rollbacks work.", true);
  else if ($("notice").classList.contains("calm")) notice("");
}

function notice(text, calm = false) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
  $("notice").classList.toggle("calm", calm);
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) return signOut("The session has ended: the token has expired or been revoked, or 12 hours are over.");
  if (error instanceof Refused) notice(error.message);
  return drawState(Date.now());
}

// --- changing -----------------------------------------------------------------------------------

const named = (id) => state.deployments.find((one) => one.id === id) ?? {};
const ACTIONS = {
  rollback: (id) => ["Roll back?", `All traffic of ${named(id).serviceName} goes back to ${named(id).fromVersion} at once.`, `deployment/${id}/rollback`],
  pause: (id) => ["Pause?", `${named(id).serviceName} stays at ${named(id).trafficPercent} %; it is still judged.`, `deployment/${id}/pause`],
  resume: (id) => ["Resume?", `${named(id).serviceName} goes on from ${named(id).trafficPercent} %.`, `deployment/${id}/resume`],
  promote: (id) => ["Next step?", `${named(id).toVersion} gets its next share without waiting for the verdict.`, `deployment/${id}/promote`, { full: false }],
  "promote-full": (id) => ["All traffic now?", `${named(id).toVersion} gets 100 % of ${named(id).serviceName}.`, `deployment/${id}/promote`, { full: true }],
  complete: (id) => ["Complete now?", `${named(id).fromVersion} is drained and retired.`, `deployment/${id}/complete`],
  undo: (name) => ["Undo the last release?", `${name} goes back to the version before.`, `services/${encodeURIComponent(name)}/undo`],
  "pause-service": (name) => ["Hold requests?", `New requests to ${name} wait, up to 30 s each.`, `services/${encodeURIComponent(name)}/pause`],
  "resume-service": (name) => ["Let requests through?", `Requests to ${name} are answered again.`, `services/${encodeURIComponent(name)}/resume`],
};

async function act(button) {
  const [title, text, path, body] = ACTIONS[button.dataset.action](button.dataset.id);
  const reason = await confirmed(title, text, button.textContent);
  if (reason === null) return;
  button.disabled = true;
  try {
    await post(path, body ?? { reason });
    notice("");
    await refresh();
  } catch (error) {
    failed(error);
  } finally {
    button.disabled = false;
  }
}

function confirmed(title, text, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm-reason").value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  $("confirm-yes").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? $("confirm-reason").value : null), { once: true });
  });
}

// --- the session --------------------------------------------------------------------------------

async function signIn(token = "") {
  const mine = new AbortController();
  try {
    if (token) await signInWith(token);
    localStorage.setItem(SIGNED_IN, "yes");
    await get("gateway");
  } catch (error) {
    localStorage.removeItem(SIGNED_IN);
    $("login").hidden = false;
    $("login-error").textContent = token ? error.message : "";
    return;
  }
  session = mine;
  $("login").hidden = true;
  $("board").hidden = false;
  $("sign-out").hidden = false;
  state.events = (await get(`events?limit=${EVENTS_KEPT}`).catch(() => ({ items: [] }))).items.reverse();
  await look().catch(failed);
  follow(onEvent, onStream, mine.signal);
  const timer = setInterval(() => look().catch(failed), LOOK_EVERY_MS);
  const clock = setInterval(draw, 1000);
  mine.signal.addEventListener("abort", () => {
    clearInterval(timer);
    clearInterval(clock);
  });
}

function onEvent(event) {
  if (state.events.some((known) => known.id === event.id)) return;
  state.events = [event, ...state.events].slice(0, EVENTS_KEPT);
  refresh().catch(failed);
}

function onStream(isOn, error) {
  state.streaming = isOn;
  if (error) failed(error);
  else drawState(Date.now());
}

function signOut(why = "") {
  session?.abort();
  session = null;
  localStorage.removeItem(SIGNED_IN);
  Object.assign(state, { gateway: null, events: [], audit: [], opened: null, rates: new Rates(), streaming: false });
  for (const id of ["board", "sign-out"]) $(id).hidden = true;
  for (const id of ["live", "whoami"]) $(id).textContent = "";
  notice("");
  $("live").className = "";
  $("login").hidden = false;
  $("login-error").textContent = why;
  $("token").focus();
}

$("login").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  $("login-error").textContent = "";
  if (token) signIn(token);
});
$("sign-out").addEventListener("click", () => endSession().then(() => signOut()));
document.addEventListener("click", (clicked) => {
  const button = clicked.target.closest("button[data-action]");
  if (button) act(button);
});
document.addEventListener("toggle", (toggled) => {
  const name = toggled.target.dataset?.service;
  if (!name || !state.opened) return;
  if (toggled.target.open) state.opened.add(name);
  else state.opened.delete(name);
}, true);

if (localStorage.getItem(SIGNED_IN)) signIn();
else signOut();
