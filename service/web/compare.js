// The same picture, two models or versions.

import { bars, recognition, verdict } from "./answers.js";
import { fill, h, heading, show } from "./dom.js";
import { anew, drawing, explanation } from "./explanations.js";
import { percent, t } from "./i18n.js";
import { quickFirst, wordsOf } from "./methods.js";
import { choices, listed } from "./models.js";
import { classify } from "./pictures.js";
import { go, note, place } from "./place.js";
import { tell, telling } from "./problems.js";
import { curl, curlAbout, saved, takeAlong } from "./share.js";

const look = (method) => ({
  ...(method === "lime" ? { style: "overlay", polarity: "both", top_superpixels: 8 } : { style: "heatmap" }),
  opacity: 0.7,
  size: 512,
});
const begun = anew();

export async function compare(root, context) {
  const { picture, answer, known } = context;
  const signal = begun(context.signal);
  const all = choices(await listed());
  if (signal.aborted) return;
  // The same version, asked for by its number, would be no comparison.
  const others = all.filter(({ model, version, of }) => model !== answer.model || (of > 1 && version && Number(version) !== answer.version));
  if (!others.length) {
    fill(root, heading(t("compare_title")), h("p", {}, t("compare_alone")));
    return;
  }
  const name = ({ model, version }) => (version ? `${model}/${version}` : model);
  const isWanted = ({ model, version, only = version }) => [name({ model, version }), name({ model, version: only })].includes(place.beside);
  const beside = others.find(isWanted) ?? others[0];
  if (place.beside && !all.some(isWanted)) {
    tell("no_model", { wanted: place.beside, shown: name(beside) });
  }
  // A link says what was compared, whatever the service would choose by then.
  note({ model: answer.model, beside: name(beside) });
  if (!Object.hasOwn(known, place.method)) {
    tell("no_method", { wanted: place.method, shown: wordsOf("gradcam", "name") });
    note({ method: "" });
  }
  const { method } = place;
  const select = h(
    "select",
    { id: "beside", on: { change: () => go({ beside: select.value }) } },
    others.map((other) => h("option", { value: name(other), selected: other === beside }, name(other))),
  );
  const how = h(
    "div",
    { class: "row segments-row", role: "group", "aria-label": t("view_why") },
    quickFirst(known).map((each) =>
      h(
        "button",
        {
          id: `method-${each}`,
          "aria-pressed": String(each === method),
          on: {
            click: () => {
              note({ method: each }, { step: true });
              compare(root, context);
            },
          },
        },
        wordsOf(each, "name"),
      ),
    ),
  );
  const said = h("p", { class: "lead", role: "status" });
  const [left, right] = [h("div", { class: "card side" }), h("div", { class: "card side" })];
  const frame = h("div", {});
  const drawings = [];
  const command = () =>
    [answer, beside]
      .flatMap(({ model, version }) => [
        curl("predict", { model, version }, { file: picture.name }),
        curlAbout(picture, "explain", { model, version, method, ...look(method) }, { save: `${[model, version].filter(Boolean).join("-")}.png` }),
      ])
      .join("\n");
  const along = () => fill(frame, takeAlong({ picture, command, drawings }));
  const drawn = (drawing) => {
    drawings.push(drawing);
    along();
  };
  along();
  fill(
    root,
    heading(t("compare_title")),
    h("div", { class: "row" }, h("label", { for: "beside" }, t("compare_with", { model: `${answer.model}/${answer.version}` })), select, how),
    said,
    h("div", { class: "pair" }, left, right),
    frame,
  );
  try {
    fill(right, h("p", { class: "note" }, t("asking")));
    const other = await classify(picture, beside.model, beside.version, { signal });
    if (signal.aborted) return;
    said.textContent = agreement(answer, other);
    const sides = [side(left, answer), side(right, other)];
    for (const [index, each] of [answer, other].entries()) await explain(sides[index], each, { picture, method, signal, drawn });
  } catch (error) {
    if (!signal.aborted) fill(right, telling(error, () => compare(root, context)));
  }
}

function agreement(one, other) {
  const [a, b] = [one.predictions[0], other.predictions[0]];
  const values = {
    one: `${one.model}/${one.version}`,
    other: `${other.model}/${other.version}`,
    a: a.label,
    b: b.label,
    a_share: percent(a.probability),
    b_share: percent(b.probability),
  };
  return t(a.label === b.label ? "agree" : "differ", values);
}

function side(root, answer) {
  const image = h("img", { alt: "", hidden: true });
  const words = h("div", { class: "working" }, h("p", { class: "note" }, t("waiting")));
  fill(
    root,
    h("h2", {}, `${answer.model}/${answer.version}`),
    h("p", {}, verdict(answer)),
    recognition(answer),
    h("figure", { class: "explanation", "aria-busy": "true" }, h("div", { class: "canvas" }, image, words)),
    bars(answer.predictions.slice(0, 5), { asLinks: false }),
  );
  return { root, image, words };
}

async function explain(shown, answer, context) {
  const { root, image, words } = shown;
  const { picture, method, signal, drawn } = context;
  const { model, version } = answer;
  const label = answer.predictions[0].label;
  const busy = root.querySelector(".explanation");
  try {
    const found = await explanation(picture, { model, version, label, method }, { signal, onProgress() {} });
    const get = () => drawing(found, look(method), signal);
    image.alt = wordsOf(method, "alt", { label });
    await show(image, await get());
    image.hidden = false;
    words.replaceChildren();
    drawn({
      id: `download-${model}-${version}`,
      words: t("method_other_download", { name: `${model}/${version}` }),
      save: saved(picture, label, model, version, method),
      get,
    });
  } catch (error) {
    if (!signal.aborted) fill(words, telling(error, () => explain(shown, answer, context)));
  }
  busy.setAttribute("aria-busy", "false");
}
