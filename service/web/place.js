// Where the reader is, as the address has it: links, back and forward lead to the same.

const NAMES = ["image_id", "model", "version", "view", "label", "layer", "channel", "beside"];
export const VIEWS = ["see", "why", "inside", "compare", "models"];
export const moved = new EventTarget();

export const place = read();

function read() {
  const given = new URLSearchParams(location.search);
  const found = Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? ""]));
  if (!VIEWS.includes(found.view)) found.view = "see";
  return found;
}

// The address of here, but for what is changed.
export function link(changes = {}) {
  const url = new URL(location.pathname, location.href);
  for (const [name, value] of Object.entries({ ...place, ...changes })) {
    if (value && !(name === "view" && value === "see")) url.searchParams.set(name, value);
  }
  return url;
}

// `quietly`: what is shown is so already. `anew`: it is another place, also where the address cannot tell.
export function go(changes, { quietly = false, anew = false } = {}) {
  const url = link(changes);
  if (quietly || (url.href === location.href && !anew)) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  Object.assign(place, read());
  if (!quietly) moved.dispatchEvent(new Event("moved"));
}

addEventListener("popstate", () => {
  Object.assign(place, read());
  moved.dispatchEvent(new Event("moved"));
});
