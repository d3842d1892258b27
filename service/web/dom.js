// Elements, made of a tag, what is set on it, and what is in it. Text stays text: nothing is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "line", "polyline", "text", "g", "rect"]);

export function h(tag, given = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (tag === "button") element.type = "button";
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "vars") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...there(children));
  return element;
}

const there = (children) => children.flat(Infinity).filter((child) => (child ?? false) !== false);

// What is inside, replaced; the focus stays where it was, if something of the same id is there again.
export function fill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  element.replaceChildren(...there(children));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

// A view's, where who comes to it by keyboard, or listens, begins.
export const heading = (words, look) => h("h1", { id: "view-title", tabindex: "-1", class: look }, words);

// What is measured, each by its name.
export const numbers = (rows) =>
  h("dl", { class: "numbers" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

export const byId = (id) => document.getElementById(id);

// For who does not see what changed.
export function say(text) {
  byId("said").textContent = text;
}

// An image of bytes: once it has read them, nothing else need hold them.
export async function show(image, blob) {
  const url = URL.createObjectURL(blob);
  image.src = url;
  await image.decode().catch(() => {});
  URL.revokeObjectURL(url);
}
