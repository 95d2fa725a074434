// Registering a version, and the service with it if it is new.

import { send } from "../lib/api.js";
import { go } from "../lib/router.js";
import { live } from "../state/live.js";
import { orWait } from "./approval-card.js";
import { dialogs } from "./dialog.js";

const VERSION = { name: "version", label: "Version", placeholder: "v1.1", required: true, maxlength: 63 };
const URL_FIELD = {
  name: "url",
  label: "Address",
  placeholder: "http://127.0.0.1:7201",
  required: true,
  hint: "Where this version already answers. Its probes start at once.",
};
const SERVICE = { name: "serviceName", label: "Service", placeholder: "auth", required: true, maxlength: 63 };
const ROUTE = {
  name: "route",
  label: "Path",
  placeholder: "/api/v1/auth",
  required: true,
  value: "/",
  hint: "Requests below this path go to the service.",
};

/** Register a version of `service`; null: of a new service. */
export async function register(service) {
  const isNew = service === null;
  const made = await dialogs.ask({
    title: isNew ? "New service" : `Register a version of ${service.name}`,
    text: isNew
      ? "Its first version takes all traffic as soon as its health check has passed."
      : "It gets no traffic: test it where it stands, then start a rollout.",
    confirm: "Register",
    fields: isNew ? [SERVICE, VERSION, URL_FIELD, ROUTE] : [VERSION, URL_FIELD],
    act: ({ serviceName, version, url, route }) =>
      send("POST", "deployment/versions", {
        serviceName: isNew ? serviceName.trim() : service.name,
        version: version.trim(),
        url: url.trim(),
        ...(isNew ? { routes: [{ path: route.trim() }] } : {}),
      }),
  });
  if (!(await orWait(made))) return;
  await live.look();
  if (isNew) go(`/services/${encodeURIComponent(made.serviceName)}`);
}
