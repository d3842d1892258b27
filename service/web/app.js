// The page: from the address to what is shown, and from what the reader does to the address.

import "./key.js";
import { see } from "./answers.js";
import { catalogue } from "./catalogue.js";
import { compare } from "./compare.js";
import { byId, fill, h, heading, say } from "./dom.js";
import { language, maybe, speak, speakOther, t } from "./i18n.js";
import { inside } from "./inside.js";
import { takesIn } from "./intake.js";
import { methods } from "./methods.js";
import { choices, listed } from "./models.js";
import { lookedAt, others, visitedBefore, welcome } from "./panel.js";
import { classify, add, fetched, remembered, visit, withId } from "./pictures.js";
import { START, go, link, moved, note, place, repeated, strays } from "./place.js";
import { tell, telling } from "./problems.js";
import { why } from "./why.js";

const DRAWN = { see, why, inside, compare };
const FRESH = { label: "", layer: "", channel: "" };

let list = { models: [], default: null };
let current = null;
let running = new AbortController();
let slow = 0;

takesIn(take);
take.open = open;
moved.addEventListener("moved", () => (list.models.length ? render({ travelled: true }) : begin()));
moved.addEventListener("noted", drawLinks);
byId("language").addEventListener("click", async () => {
  const nameless = t("from_link");
  await speakOther();
  for (const picture of visit) if (picture.name === nameless) picture.name = t("from_link");
  await render();
});
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("sichtbar-theme", root.dataset.theme);
  } catch {
    // Then for this visit alone.
  }
});
byId("model").addEventListener("change", (event) => {
  const [model, version] = event.target.value.split("/");
  go({ model, version, layer: "", channel: "", label: "" });
});
// Links within the page need not load it again.
document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[data-go], a[data-view], a.brand");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (anchor.matches(".brand")) go(START, { unnamed: "" });
  else if (anchor.dataset.view) go({ view: anchor.dataset.view });
  else go(Object.fromEntries([...new Map([["view", "see"], ["label", ""], ...new URL(anchor.href).searchParams])]));
});

await speak();
await begin();

async function begin() {
  fill(byId("view"), heading("Sichtbar", "hidden"));
  wait();
  try {
    list = await listed();
  } catch (error) {
    showProblem(error, begin);
    return;
  }
  // What was looked at before, but not what it looked like: that is fetched when it is wanted.
  const ids = remembered();
  await render();
  for (const { id, name } of ids.toReversed()) {
    if (withId(id)) continue;
    try {
      await fetched(id, name);
    } catch {
      // It has expired.
    }
  }
  if (current) showPanel();
  else visitedBefore(take.open);
}

function model() {
  return place.model || list.default || choices(list)[0]?.model || "";
}

// Pictures of the reader's: each is asked about, the first is looked at.
async function take(files) {
  // The first of them comes to lie first.
  const [first, ...rest] = [...files].reverse().map(({ content, name }) => add(content, name)).reverse();
  open(first, { ...FRESH, view: place.view === "models" ? "see" : place.view });
  for (const picture of rest) {
    try {
      await classify(picture, model(), place.version);
    } catch (error) {
      picture.problem = error;
    }
    showPanel();
  }
}

function open(picture, changes = FRESH) {
  current = picture;
  // What was pressed where a visit begins goes with it: who pressed it begins at the answer.
  if (byId("view").contains(document.activeElement)) document.activeElement.blur();
  // What the service calls it is known once it has answered.
  go({ ...changes, image_id: picture.id ?? "" }, { unnamed: picture.id ? "" : picture.key });
}

async function render({ travelled = false } = {}) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const { view } = place;
  tell("");
  come();
  mend();
  drawFrame();
  if (view === "models") {
    alone(true);
    await catalogue(byId("view"), { signal });
    if (signal.aborted) return;
    arrive(travelled);
    // It may have found others than there were.
    list = await listed().catch(() => list);
    if (!signal.aborted) drawFrame();
    return;
  }
  wait();
  try {
    current = await wanted(signal);
  } catch (error) {
    if (!signal.aborted) showProblem(error, () => render(), { lost: true });
    return;
  }
  if (signal.aborted) return;
  if (!current) {
    come();
    alone(true);
    welcome(byId("view"), { take, view });
    arrive(travelled);
    return;
  }
  alone(false);
  showPanel();
  // What is there still belongs to another picture or model.
  byId("view").setAttribute("aria-busy", "true");
  const [asked, told] = await Promise.allSettled([
    classify(current, model(), place.version, { signal }),
    ["why", "compare"].includes(view) && methods(),
  ]);
  if (signal.aborted) return;
  come();
  current.problem = asked.reason;
  if (asked.reason) {
    showPanel();
    showProblem(asked.reason, () => render());
    return;
  }
  const answer = asked.value;
  if (!place.image_id && current.id) note({ image_id: current.id });
  showPanel(answer);
  if (view === "see") say(t("answer_said", { name: current.name, label: answer.predictions[0].label }));
  try {
    if (told.reason) throw told.reason;
    const drawn = DRAWN[view](byId("view"), { picture: current, answer, known: told.value, signal });
    arrive(travelled);
    await drawn;
  } catch (error) {
    if (!signal.aborted) showProblem(error, () => render());
  }
}

// What is slow to come is waited for with a word.
function wait() {
  clearTimeout(slow);
  slow = setTimeout(() => {
    byId("view").removeAttribute("aria-busy");
    fill(byId("view"), heading(t("asking")));
    say(t("asking"));
  }, 400);
}

// It is there.
function come() {
  clearTimeout(slow);
  say("");
  byId("view").removeAttribute("aria-busy");
}

// What the address says and is not here is told, and taken out of it; the usual is shown.
function mend() {
  const [found, twice] = [strays(), repeated()];
  if (twice.length) tell("twice", { wanted: twice.join(", ") });
  if (found.length) {
    const wanted = found.map(([name, given]) => `${name}=${given}`).join(", ");
    const instead = found.map(([name, , usual]) => maybe([name, usual || "auto"].join("_")) ?? usual).filter(String);
    tell(instead.length ? "no_value" : "no_name", { wanted, shown: instead.join(", ") });
  }
  if (found.length || twice.length) note({});
  if (place.image_id && !/^[0-9a-f]{64}$/.test(place.image_id)) {
    tell("no_image", { wanted: place.image_id });
    note({ image_id: "" });
  }
  mendModel();
}

function mendModel() {
  if (!list.models.length) return;
  const wanted = place.version ? `${model()}/${place.version}` : model();
  const found = list.models.find(({ name }) => name === model());
  if (place.model && !found) note({ model: "", version: "" });
  else if (place.version && found && !has(found, place.version)) note({ version: "" });
  else return;
  tell("no_model", { wanted, shown: model() });
}

function has({ versions, labels: { stable, canary } }, wanted) {
  if (wanted === "stable") return stable;
  if (wanted === "canary") return canary;
  return versions.some(({ version }) => String(version) === wanted);
}

// The picture that the address names; else the one that this step of the visit is about.
async function wanted(signal) {
  const id = place.image_id;
  if (!id) return visit.find(({ key }) => key === history.state);
  if (current?.id === id) return current;
  return withId(id) ?? fetched(id, remembered().find((known) => known.id === id)?.name ?? t("from_link"), { signal });
}

function showPanel(answer) {
  const latest = answer ?? current?.answers.get(`${model()}/${place.version}`);
  if (!current || place.view === "models") return;
  lookedAt(byId("picture"), { picture: current, answer: latest, brief: place.view !== "see" });
  others(byId("others"), { picture: current, take });
}

// Whether the view stands without a picture beside it.
function alone(whether) {
  document.body.dataset.layout = whether ? "one" : "two";
  byId("picture").hidden = byId("others").hidden = whether;
}

function showProblem(error, again, { lost = false } = {}) {
  come();
  if (lost) {
    alone(true);
    welcome(byId("view"), { take, view: "see" });
    byId("view").prepend(telling(error, again));
    return;
  }
  fill(byId("view"), heading(t("went_wrong")), telling(error, again));
}

function drawFrame() {
  document.body.dataset.view = place.view;
  const title = t(`view_${place.view}`);
  document.title = place.view === "see" ? "Sichtbar" : `${title} · Sichtbar`;
  const [code, name] = language === "en" ? ["de", "Deutsch"] : ["en", "English"];
  byId("language").lang = code;
  // Where there is little room its name is heard alone.
  fill(byId("language"), h("span", { class: "in-full" }, name), h("span", { class: "in-short", "aria-hidden": "true" }, code.toUpperCase()));
  drawLinks();
  const select = byId("model");
  const wanted = `${model()}/${place.version}`;
  const options = choices(list).map(({ model: name, version, of, only }) => {
    const value = `${name}/${version}`;
    const words = of === 1 ? name : version ? t("model_version", { name, version }) : t("model_automatic", { name });
    return h("option", { value, selected: [value, `${name}/${only}`].includes(wanted) }, words);
  });
  if (options.length && !options.some((option) => option.selected)) {
    options.push(h("option", { value: wanted, selected: true }, wanted.replace(/\/$/, "")));
  }
  fill(select, options);
}

function drawLinks() {
  for (const anchor of document.querySelectorAll(".views a")) {
    anchor.href = link({ view: anchor.dataset.view });
    if (anchor.dataset.view === place.view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

// Who goes to another view by keyboard, or listens, begins at its title.
function arrive(travelled) {
  if (travelled && (document.activeElement === document.body || document.activeElement?.closest(".views, .next, .bars"))) {
    byId("view-title")?.focus({ preventScroll: true });
  }
}

addEventListener("pagehide", () => running.abort());
// A browser may keep the page as it was left, and bring it back so.
addEventListener("pageshow", (event) => event.persisted && render());
