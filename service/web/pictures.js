// The pictures of this visit, and what was answered to each.

import { blob, json } from "./api.js";

const STORED = "sichtbar-visit";
const MOST_REMEMBERED = 12;

// Newest first. `id`: under which the service keeps it; null where it does not.
export const visit = [];
// Browsers remember a key for longer than this page is there.
let count = Date.now();

export function add(content, name) {
  const known = visit.find((picture) => picture.blob === content);
  if (known) return known;
  const picture = { key: `p${++count}`, id: null, name, blob: content, url: URL.createObjectURL(content), answers: new Map() };
  visit.unshift(picture);
  return picture;
}

export const withId = (id) => visit.find((picture) => picture.id === id);

// A picture that the service keeps: of an earlier visit, or of another's link.
export async function fetched(id, name, options) {
  const content = await blob(`images/${encodeURIComponent(id)}`, options);
  const known = withId(id);
  if (known) return known;
  const picture = add(content, name);
  picture.id = id;
  remember();
  return picture;
}

const form = (picture) => {
  const body = new FormData();
  body.append("file", picture.blob, picture.name);
  return body;
};

// The answer of a model; asked once. `version`: null for the one that the service chooses.
export async function classify(picture, model, version, options) {
  const asked = `${model}/${version}`;
  if (!picture.answers.has(asked)) {
    const answer = await json("predict", {
      ...options,
      method: "POST",
      params: { model, version, top_k: 10 },
      body: form(picture),
    });
    const [image] = answer.images;
    picture.id = image.image_id;
    picture.answers.set(asked, { model: answer.model, version: answer.version, ...image });
    // The same file twice is one picture of the visit; the other may still be looked at.
    const twin = visit.findIndex((other) => other !== picture && other.id && other.id === picture.id);
    if (twin >= 0) visit.splice(twin, 1);
    remember();
  }
  return picture.answers.get(asked);
}

// A call about a picture: by its id, or with the picture itself where the service keeps none.
export async function about(picture, path, call, { params, signal, post = false } = {}) {
  const withPicture = () => call(path, { params, signal, method: "POST", body: form(picture) });
  if (picture.id === null) return withPicture();
  const named = () => call(path, { params: { ...params, image_id: picture.id }, signal, method: post ? "POST" : "GET" });
  try {
    return await named();
  } catch (error) {
    if (error.code !== "unknown_image") throw error;
    // It expired there, and is still here.
    await json("predict", { method: "POST", params: { model: params.model, version: params.version }, body: form(picture), signal });
    return named();
  }
}

function remember() {
  const kept = visit.filter((picture) => picture.id).slice(0, MOST_REMEMBERED);
  try {
    sessionStorage.setItem(STORED, JSON.stringify(kept.map(({ id, name }) => ({ id, name }))));
  } catch {
    // Then a reload begins a new visit.
  }
}

// What was looked at before the page was loaded again, newest first.
export function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
  } catch {
    return [];
  }
}
