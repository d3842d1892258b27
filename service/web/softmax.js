// What softmax does: scores of any size become shares of one.

import { fill, h, say } from "./dom.js";
import { number, percent, significant, t } from "./i18n.js";
import { card } from "./models.js";
import { SLIDERS, note, place } from "./place.js";
import { telling } from "./problems.js";
import { curlAbout, takeAlong } from "./share.js";

export async function softmax(root, { picture, walk, answer, signal }) {
  if (!walk.predictions) {
    fill(root, h("div", { class: "card" }, h("h2", {}, t("softmax_title")), h("p", {}, t("softmax_unkept"))));
    return;
  }
  let temperature;
  try {
    ({ temperature } = (await card(answer.model, answer.version)).manifest);
  } catch (error) {
    if (!signal.aborted) fill(root, telling(error, () => softmax(root, { picture, walk, answer, signal })));
    return;
  }
  if (signal.aborted) return;
  const body = h("tbody", {});
  const output = h("output", { for: "sharpness" });
  const { min, max, step } = SLIDERS.sharpness;
  const slider = h("input", {
    type: "range",
    id: "sharpness",
    min,
    max,
    step,
    on: { input: () => draw(), change: () => note({ sharpness: slider.valueAsNumber }) },
    value: place.sharpness,
  });
  const draw = () => {
    const sharpness = 2 ** slider.valueAsNumber;
    output.textContent = number(sharpness, 2);
    fill(body, rows(walk, temperature / sharpness));
  };
  fill(
    root,
    h(
      "div",
      { class: "card" },
      h("h2", {}, t("softmax_title")),
      h("p", {}, t("softmax_more")),
      temperature !== 1 && h("p", { class: "note" }, t("softmax_temperature", { temperature: number(temperature, 3) })),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": t("softmax_title") },
        h(
          "table",
          { class: "softmax" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["class", "logit", "power", "probability"].map((name) => h("th", { scope: "col" }, t(`column_${name}`))),
            ),
          ),
          body,
        ),
      ),
      h("label", { class: "slider", for: "sharpness" }, h("span", {}, t("sharpness"), " ", output), slider),
      h("p", { class: "note" }, t("sharpness_more")),
    ),
    takeAlong({ picture, command: () => curlAbout(picture, "walk", { model: answer.model, version: answer.version }) }),
  );
  draw();
  say(t("softmax_title"));
}

function rows({ predictions, logits }, temperature) {
  const highest = Math.max(...logits);
  const sum = logits.reduce((total, logit) => total + Math.exp((logit - highest) / temperature), 0);
  const most = Math.max(...logits.map(Math.abs));
  return predictions.map(({ label, logit }) => {
    const power = Math.exp((logit - highest) / temperature);
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, label),
      h(
        "td",
        {},
        h("span", { class: "figure" }, number(logit, 2, 2)),
        h(
          "span",
          { class: "bar-line both", "aria-hidden": "true" },
          h("span", { class: logit < 0 ? "bar-fill against" : "bar-fill", vars: { "--share": Math.abs(logit) / most / 2 } }),
        ),
      ),
      h("td", {}, h("span", { class: "figure" }, significant(power, 2))),
      h(
        "td",
        {},
        h("span", { class: "figure" }, percent(power / sum)),
        h("span", { class: "bar-line", "aria-hidden": "true" }, h("span", { class: "bar-fill", vars: { "--share": power / sum } })),
      ),
    );
  });
}
