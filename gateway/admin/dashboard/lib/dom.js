// Elements from data, and data into elements that are there already.
// Text only ever becomes text: nothing here parses HTML, so a version called "<script>" is shown as that.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "line", "polyline", "polygon", "text", "path", "g", "title", "circle"]);
const GIVEN = Symbol("properties given by h()");
const SAME = Symbol("stands for what is there already");
/** The reader opens and closes these; drawing again must not. */
const OWN_STATE = { DETAILS: "open", DIALOG: "open" };

/**
 * Make an element: h("p", {class: "quiet"}, "text", otherElement). Null children and attributes are left out.
 * `.name` sets a property, `onclick` and the like take functions.
 */
export function h(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  const given = {};
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith(".")) given[name.slice(1)] = value;
    else if (typeof value === "function") given[name] = value;
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element[GIVEN] = given;
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== "" && child !== false) element.append(child);
  }
  Object.assign(element, given); // last: a select takes its value only once it has options
  return element;
}

/** Stand for the child with this key that is there already: it stays as it is, and costs nothing. */
export function same(tag, key) {
  const element = document.createElement(tag);
  element.dataset.key = key;
  element[SAME] = true;
  return element;
}

/** Make `parent` hold `children`, changing what is there as little as possible: focus and scrolling stay. */
export function show(parent, ...children) {
  const wanted = children
    .flat(3)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  wanted.forEach((child, index) => place(parent, child, parent.childNodes[index], keyed));
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function place(parent, child, there, keyed) {
  const wanted = typeof child === "object" ? child : document.createTextNode(String(child));
  const known = wanted.dataset?.key ? keyed.get(wanted.dataset.key) : null;
  if (known && known !== there && known.nodeName === wanted.nodeName && known.parentNode === parent) {
    parent.insertBefore(known, there ?? null);
    become(known, wanted);
  } else if (!there) parent.append(wanted);
  else if (alike(there, wanted)) become(there, wanted);
  else if (there.dataset?.key) parent.insertBefore(wanted, there);
  else parent.replaceChild(wanted, there);
}

function alike(a, b) {
  return a.nodeName === b.nodeName && (a.dataset?.key ?? null) === (b.dataset?.key ?? null);
}

function become(there, wanted) {
  if (there === wanted || wanted[SAME]) return;
  if (there.nodeType === Node.TEXT_NODE) {
    if (there.data !== wanted.data) there.data = wanted.data;
    return;
  }
  const kept = OWN_STATE[there.nodeName];
  for (const { name } of [...there.attributes]) {
    if (!wanted.hasAttribute(name) && name !== kept) there.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name !== kept && there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  if (!there.nodeName.includes("-")) show(there, [...wanted.childNodes]); // a part draws its own inside
  adopt(there, wanted);
}

/** Take over properties and handlers; what has not changed since it was given is left to the reader. */
function adopt(there, wanted) {
  const before = there[GIVEN] ?? {};
  const after = wanted[GIVEN] ?? {};
  for (const name of Object.keys(before)) if (!(name in after) && name.startsWith("on")) there[name] = null;
  for (const [name, value] of Object.entries(after)) if (before[name] !== value) there[name] = value;
  there[GIVEN] = after;
}
