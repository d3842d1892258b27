// What the model says: bars with probabilities, and whether it knows the thing at all.

import { fill, h, heading } from "./dom.js";
import { number, percent, t } from "./i18n.js";
import { link, note, place } from "./place.js";
import { curl, takeAlong } from "./share.js";

const SHOWN_FIRST = 5;

export function bars(predictions, { asLinks = true } = {}) {
  return h(
    "ol",
    { class: "bars" },
    predictions.map(({ label, probability }, rank) =>
      h(
        "li",
        { class: rank === 0 ? "bar first" : "bar" },
        h(
          asLinks ? "a" : "span",
          {
            class: "bar-row",
            ...(asLinks && { href: link({ view: "why", label: rank ? label : "" }), "data-go": true, title: t("ask_why", { label }) }),
          },
          h("span", { class: "bar-label" }, label),
          h("span", { class: "bar-share" }, percent(probability)),
          h("span", { class: "bar-line", "aria-hidden": "true" }, h("span", { class: "bar-fill", vars: { "--share": probability } })),
        ),
      ),
    ),
  );
}

// The verdict in a sentence.
export function verdict({ predictions, recognised }) {
  const [first, second] = predictions;
  const values = { label: first.label, share: percent(first.probability), second: second?.label ?? "" };
  if (recognised === false) return t("verdict_unknown", values);
  if (first.probability >= 0.9) return t("verdict_sure", values);
  if (first.probability >= 0.6) return t("verdict_likely", values);
  return t(second ? "verdict_torn" : "verdict_likely", values);
}

export function recognition({ recognised }) {
  const key = recognised === null ? "recognised_unmeasured" : recognised ? "recognised_yes" : "recognised_no";
  return h("p", { class: `recognised ${recognised === false ? "doubt" : ""}` }, t(key));
}

export function see(root, { picture, answer }) {
  const { predictions, seconds } = answer;
  const all = place.classes === "all";
  const shown = all ? predictions : predictions.slice(0, SHOWN_FIRST);
  const command = () => curl("predict", { model: answer.model, version: answer.version }, { file: picture.name });
  fill(
    root,
    heading(verdict(answer), "verdict"),
    recognition(answer),
    bars(shown),
    predictions.length > SHOWN_FIRST &&
      h(
        "button",
        {
          class: "quiet",
          id: "more",
          "aria-expanded": String(all),
          on: {
            click: () => {
              note({ classes: all ? "few" : "all" }, { step: true });
              see(root, { picture, answer });
              document.getElementById("more").focus();
            },
          },
        },
        t(all ? "fewer" : "more"),
      ),
    h(
      "p",
      { class: "note" },
      t("seconds", {
        model: `${answer.model}/${answer.version}`,
        milliseconds: number(1000 * (seconds.decode + seconds.queue + seconds.inference + (seconds.cache ?? 0)), 1),
      }),
    ),
    h(
      "ul",
      { class: "next" },
      ["why", "inside", "compare"].map((view) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: link({ view, label: "" }), "data-go": true },
            h("strong", {}, t(`next_${view}`)),
            h("span", {}, t(`next_${view}_more`, { label: predictions[0].label })),
          ),
        ),
      ),
    ),
    takeAlong({ picture, command }),
  );
}
