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
  method: ["gradcam", "lime"],
};
export const SLIDERS = {
  top_superpixels: { min: 1, max: 200, step: 1, usual: 5 },
  opacity: { min: 0, max: 1, step: 0.05, usual: 0.7 },
  sharpness: { min: -2, max: 2, step: 0.1, usual: 0 },
};
const NAMED = ["image_id", "model", "version", "view", "label", "layer", "channel", "beside"];
const NAMES = [...new Set([...NAMED, ...Object.keys(CHOICES), ...Object.keys(SLIDERS)])];

export const place = read();
// Where a visit begins, with the same model.
export const START = meantBy(NAMES.filter((name) => name !== "model" && name !== "version"), new URLSearchParams());

function read() {
  return meantBy(NAMES, new URLSearchParams(location.search));
}

function meantBy(names, given) {
  return Object.fromEntries(names.map((name) => [name, meant(name, given.get(name) ?? "")]));
}

function meant(name, given) {
  if (name in CHOICES) return CHOICES[name].includes(given) ? given : CHOICES[name][0];
  if (name in SLIDERS) return onSlider(SLIDERS[name], given);
  if (name === "channel") return /^\d{1,6}$/.test(given) ? given : "";
  return given;
}

function onSlider({ min, max, step, usual }, given) {
  const value = given.trim() ? Math.round(Number(given) / step) * step : NaN;
  return value >= min && value <= max ? Number(value.toFixed(2)) : usual;
}

// The address of here, but for what is changed.
export function link(changes = {}) {
  const url = new URL(location.pathname, location.href);
  for (const [name, value] of Object.entries({ ...place, ...changes })) {
    if (value !== meant(name, "")) url.searchParams.set(name, value);
  }
  return url;
}

// What is shown follows. `anew`: it is another place, also where the address cannot tell.
export function go(changes, { anew = false } = {}) {
  enter(changes, { step: true, anew });
  moved.dispatchEvent(new Event("moved"));
}

// What is shown is so already. `step`: back leads to how it was.
export function note(changes, { step = false } = {}) {
  enter(changes, { step });
  moved.dispatchEvent(new Event("noted"));
}

function enter(changes, { step, anew = false }) {
  const url = link(changes);
  if (step && (anew || url.href !== location.href)) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  Object.assign(place, read());
}

addEventListener("popstate", () => {
  Object.assign(place, read());
  moved.dispatchEvent(new Event("moved"));
});
