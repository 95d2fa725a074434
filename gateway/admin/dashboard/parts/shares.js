// How the traffic of a service is shared out: one segment a version, named.

import { h } from "../lib/dom.js";

/** versions: those with a share. */
export function shares(versions) {
  if (!versions.length) return h("span", { class: "quiet" }, "no traffic");
  let from = 0;
  const text = versions.map((version) => `${version.version} ${Math.round(version.share)} %`).join(", ");
  return [
    h(
      "svg",
      { class: "shares", width: "100%", height: 8, role: "img", "aria-label": text },
      versions.map((version, index) => {
        const x = from;
        from += version.share;
        return h("rect", {
          class: `part-${index % 4}`,
          x: `${x}%`,
          y: 0,
          width: `${Math.max(0, version.share - 0.4)}%`,
          height: 8,
        });
      }),
    ),
    h(
      "span",
      { class: "quiet", "aria-hidden": "true" },
      versions.length > 1 ? text : `${versions[0].version} 100 %`,
    ),
  ];
}
