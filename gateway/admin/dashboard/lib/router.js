// Which page a path is, and going there without loading everything again.

const PAGES = [
  [/^\/$/, "gw-home", []],
  [/^\/rollouts\/([^/]+)$/, "gw-rollout", ["id"]],
  [/^\/services\/([^/]+)$/, "gw-service", ["name"]],
  [/^\/history$/, "gw-history", []],
  [/^\/audit$/, "gw-audit", []],
  [/^\/tokens$/, "gw-tokens", []],
];

/** Tells whoever listens that another page is wanted: `moved`. */
export const router = new EventTarget();

/** The page of the present address: {tag, params, path}. */
export function here() {
  for (const [pattern, tag, names] of PAGES) {
    const found = pattern.exec(location.pathname);
    const params = found && Object.fromEntries(names.map((name, index) => [name, decoded(found[index + 1])]));
    if (params) return { tag, params, path: location.pathname };
  }
  return { tag: "gw-nowhere", path: location.pathname, params: {} };
}

/** A segment of the address as it was meant; one that means nothing stays as it is. */
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function go(to) {
  history.pushState(null, "", to);
  router.dispatchEvent(new Event("moved"));
}

/** A parameter of the address' query; "" if it is not there. */
export function asked(name) {
  return new URLSearchParams(location.search).get(name) ?? "";
}

/** Keep what was typed or chosen in the address, so that it can be sent to somebody. */
export function remember(name, value) {
  const query = new URLSearchParams(location.search);
  if (value) query.set(name, value);
  else query.delete(name);
  const text = query.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
}

addEventListener("popstate", () => router.dispatchEvent(new Event("moved")));
document.addEventListener("click", (click) => {
  const link = click.target.closest?.("a[href^='/']");
  const isPlain = click.button === 0 && !click.metaKey && !click.ctrlKey && !click.shiftKey && !click.altKey;
  if (!link || !isPlain || link.target || click.defaultPrevented) return;
  click.preventDefault();
  go(link.getAttribute("href"));
});
