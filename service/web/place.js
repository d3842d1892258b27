// Where the reader is and how it is shown, as the address has it: links, back and forward lead to the same.

export const moved = new EventTarget();

// What can be chosen. The first is meant where an address says nothing, or something else.
export const CHOICES = {
  view: ["see", "why", "inside", "compare", "models"],
  classes: ["few", "all"],
  style: ["overlay", "outline", "heatmap"],
  polarity: ["positive", "negative", "both"],
  superpixels: ["", "20", "100"],
  aspect: ["maps", "filters"],
  over: ["true", "false"],
};
export const SLIDERS = {
  top_superpixels: { min: 1, max: 200, step: 1, usual: 5 },
  opacity: { min: 0, max: 1, step: 0.05, usual: 0.7 },
  sharpness: { min: -2, max: 2, step: 0.1, usual: 0 },
};
const NAMED = ["image_id", "model", "version", "view", "label", "layer", "channel", "beside", "method", "open"];
const NAMES = [...new Set([...NAMED, ...Object.keys(CHOICES), ...Object.keys(SLIDERS)])];
// What can be opened, by its id: of a version; in a view, where there is more than the call.
export const OF_A_VERSION = /^(report|diagram|origin|labels)-(.+)-(\d+)$/;
const OPENED = { why: /^(call|numbers|how-.+)$/, models: OF_A_VERSION };

export const place = read();
// Where a visit begins, with the same model.
export const START = meantBy(NAMES.filter((name) => name !== "model" && name !== "version"), new URLSearchParams());

function read() {
  const said = meantBy(NAMES, new URLSearchParams(location.search));
  return { ...said, open: openedIn(said.view, said.open) };
}

function openedIn(view, ids) {
  return ids.split(" ").filter((id) => (OPENED[view] ?? /^call$/).test(id)).join(" ");
}

function meantBy(names, given) {
  return Object.fromEntries(names.map((name) => [name, meant(name, given.get(name) ?? "")]));
}

function usual(name) {
  return CHOICES[name]?.[0] ?? SLIDERS[name]?.usual ?? (name === "method" ? "gradcam" : "");
}

function meant(name, given) {
  return given === "" ? usual(name) : known(name, given) ?? usual(name);
}

function known(name, given) {
  if (Object.hasOwn(CHOICES, name)) return CHOICES[name].find((value) => value === given);
  if (Object.hasOwn(SLIDERS, name)) return onSlider(SLIDERS[name], given);
  return NAMES.includes(name) ? given : undefined;
}

function onSlider({ min, max, step }, given) {
  const value = given.trim() ? Math.round(Number(given) / step) * step : NaN;
  return value >= min && value <= max ? Number(value.toFixed(2)) : undefined;
}

// What the address says that means nothing here, and what is meant instead, if anything.
export function strays() {
  const all = new URLSearchParams(location.search);
  return [...new Set(all.keys())].map((name) => [name, stray(name, all.get(name)), usual(name)]).filter(([, given]) => given);
}

function stray(name, given) {
  if (name === "open") return given.split(" ").filter((id) => !openedIn(place.view, id)).join(" ");
  return known(name, given) === undefined && given;
}

// What the address says more than once. The first is meant.
export function repeated() {
  const all = new URLSearchParams(location.search);
  return [...new Set(all.keys())].filter((name) => all.getAll(name).length > 1);
}

// The address of here, but for what is changed, and what its view has not to open.
export function link(changes = {}) {
  const url = new URL(location.pathname, location.href);
  const there = { ...place, ...changes };
  there.open = openedIn(there.view, there.open);
  for (const [name, value] of Object.entries(there)) {
    if (value !== meant(name, "")) url.searchParams.set(name, value);
  }
  return url;
}

// What is shown follows. `unnamed`: the key of a picture that has no id to be named by, or not yet.
export function go(changes, { unnamed = picture } = {}) {
  enter(changes, { step: true, unnamed });
  moved.dispatchEvent(new Event("moved"));
}

// What is shown is so already. `step`: back leads to how it was.
export function note(changes, { step = false } = {}) {
  enter(changes, { step });
  moved.dispatchEvent(new Event("noted"));
}

let picture = history.state ?? "";

function enter(changes, { step, unnamed = picture }) {
  const url = link(changes);
  const another = url.href !== location.href || unnamed !== picture;
  history[step && another ? "pushState" : "replaceState"](unnamed, "", url);
  picture = unnamed;
  Object.assign(place, read());
}

addEventListener("popstate", () => {
  const before = { ...place };
  // The link that skips the head leads to no other place.
  if (location.hash && history.state === null) history.replaceState(picture, "");
  const another = picture !== (history.state ?? "");
  picture = history.state ?? "";
  Object.assign(place, read());
  const changed = NAMES.filter((name) => place[name] !== before[name]);
  if (another || changed.length) moved.dispatchEvent(new Event(!another && String(changed) === "open" ? "noted" : "moved"));
});
