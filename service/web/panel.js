// The picture that is looked at; beside it ways to another one, and those of this visit.

import { blob } from "./api.js";
import { recognition } from "./answers.js";
import { byId, fill, h, heading } from "./dom.js";
import { percent, t } from "./i18n.js";
import { choose, photograph } from "./intake.js";
import { visit } from "./pictures.js";
import { telling } from "./problems.js";

export const EXAMPLES = ["banana", "lemon", "avocado", "strawberry"];

const ways = (main) =>
  h(
    "div",
    { class: "row ways" },
    h("button", { class: main ? "main" : "", id: "choose", on: { click: choose } }, t("choose")),
    h("button", { id: "photograph", on: { click: photograph } }, t("photograph")),
  );

const contents = {};

function examples(take) {
  const told = h("div", {});
  const fetched = async (name) => {
    fill(told);
    try {
      contents[name] ??= blob(`web/examples/${name}.jpg`);
      take([{ content: await contents[name], name: `${name}.jpg` }]);
    } catch (error) {
      delete contents[name];
      fill(told, telling(error));
    }
  };
  const thumbs = h(
    "ul",
    { class: "thumbs" },
    EXAMPLES.map((name) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            class: "thumb",
            id: `example-${name}`,
            "aria-label": t("example_of", { name: t(`example_${name}`) }),
            on: { click: () => fetched(name) },
          },
          h("img", { src: new URL(`examples/${name}.jpg`, import.meta.url), alt: "", width: 72, height: 72 }),
        ),
      ),
    ),
  );
  return [thumbs, h("p", { class: "note" }, t("examples_note")), told];
}

// TIFF, for one, is answered but not shown by every browser: then something else is.
function shown(image, otherwise) {
  image.addEventListener("error", () => image.replaceWith(otherwise));
  return image;
}

function visited(current, open) {
  const label = (picture) => [...picture.answers.values()].at(-1)?.predictions[0].label ?? picture.name;
  return h(
    "ul",
    { class: "thumbs" },
    visit.map((picture) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            class: "thumb",
            id: `visit-${picture.key}`,
            "aria-label": `${picture.name}: ${picture.problem ? t("not_answered") : label(picture)}`,
            "aria-current": picture === current || (picture.id && picture.id === current?.id) ? "true" : null,
            on: { click: () => open(picture) },
          },
          shown(h("img", { src: picture.url, alt: "", width: 72, height: 72 }), h("span", { class: "unseen", "aria-hidden": "true" }, "?")),
          h("span", { class: "thumb-name" }, picture.problem ? t("not_answered") : label(picture)),
        ),
      ),
    ),
  );
}

export function welcome(root, { take, view }) {
  fill(
    root,
    h(
      "div",
      { class: "welcome" },
      heading(t("welcome")),
      h("p", { class: "lead" }, t(view === "see" ? "welcome_more" : "first_a_picture")),
      h(
        "div",
        { class: "drop" },
        h("p", { class: "drop-words" }, t("drop")),
        ways(true),
        h("p", { class: "note" }, t("drop_more")),
      ),
      h("h2", { class: "small" }, t("examples")),
      examples(take),
      h("div", { class: "tray", id: "visited" }),
    ),
  );
  visitedBefore(take.open);
}

export function visitedBefore(open) {
  const root = byId("visited");
  if (root && visit.length) fill(root, h("h2", { class: "small" }, t("visit")), visited(null, open));
}

export function lookedAt(root, { picture, answer, brief }) {
  const image = h("img", { class: "shown", src: picture.url, alt: t("picture_named", { name: picture.name }) });
  const first = answer?.predictions[0];
  fill(
    root,
    h(
      "figure",
      { class: "looked-at" },
      shown(image, h("p", { class: "shown note" }, t("cannot_show"))),
      h(
        "figcaption",
        {},
        h("span", { class: "name" }, picture.name),
        brief && first && h("span", { class: "headline" }, h("strong", {}, first.label), ` ${percent(first.probability)}`),
        brief && answer?.recognised === false && recognition(answer),
      ),
    ),
  );
}

export function others(root, { picture, take }) {
  fill(
    root,
    ways(false),
    h("p", { class: "note hint" }, t("drop_hint")),
    visit.length > 1 && h("div", { class: "tray" }, h("h2", { class: "small" }, t("visit")), visited(picture, take.open)),
    h("div", { class: "tray" }, h("h2", { class: "small" }, t("examples_more")), examples(take)),
  );
}
