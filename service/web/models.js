// Which models there are, and the card of each version.

import { json } from "./api.js";

let asked = null;
const cards = new Map();

export function listed() {
  asked ??= json("models").catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

// Asked again: versions come and go while the service runs.
export function listedAgain() {
  asked = null;
  return listed();
}

export function card(model, version) {
  const name = `${model}/${version}`;
  if (!cards.has(name)) {
    const found = json(`models/${encodeURIComponent(model)}/versions/${version}`);
    cards.set(name, found);
    found.catch(() => cards.delete(name));
  }
  return cards.get(name);
}

export const available = (model) => model.versions.filter((version) => version.state === "available");

// Every choice a reader has: a model, and one of its versions, or whichever the service means. `only`: which that is,
// where there is one alone.
export function choices(list) {
  return list.models.flatMap((model) => {
    const versions = available(model);
    if (!versions.length) return [];
    const automatic = { model: model.name, version: "", of: versions.length };
    if (versions.length === 1) return [{ ...automatic, only: String(versions[0].version) }];
    return [automatic, ...versions.map(({ version }) => ({ model: model.name, version: String(version), of: versions.length }))];
  });
}
