// Elements from data, and data into elements that are there already.
// Text only ever becomes text: nothing here parses HTML, so a version called "<script>" is shown as that.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "line", "polyline", "text", "path", "g", "title"]);

/** Make an element: h("p", {class: "quiet"}, "text", otherElement). Null children and attributes are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== "") element.append(child);
  }
  return element;
}

/** Make `parent` hold `children`, changing what is there as little as possible: focus and scrolling stay. */
export function show(parent, ...children) {
  const wanted = children.flat().filter((child) => child !== null);
  wanted.forEach((child, index) => {
    const there = parent.childNodes[index];
    if (!there) parent.append(child);
    else if (!alike(there, child)) parent.replaceChild(child, there);
    else become(there, child);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function alike(a, b) {
  return a.nodeName === b.nodeName && (a.dataset?.key ?? null) === (b.dataset?.key ?? null);
}

function become(there, wanted) {
  if (there.nodeType === Node.TEXT_NODE) {
    if (there.data !== wanted.data) there.data = wanted.data;
    return;
  }
  for (const { name } of [...there.attributes]) if (!wanted.hasAttribute(name)) there.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  show(there, [...wanted.childNodes]);
}
