// Why the model says so: LIME and Grad-CAM over the picture, and how far to trust them.

import { tell, telling } from "./problems.js";
import { fill, h, heading, say, show } from "./dom.js";
import { anew, drawing, explanation, latest, preview } from "./explanations.js";
import { fold } from "./folds.js";
import { maybe, number, percent, t } from "./i18n.js";
import { quickFirst, wordsOf } from "./methods.js";
import { card } from "./models.js";
import { CHOICES, SLIDERS, go, note, place } from "./place.js";
import { curlAbout, saved, takeAlong } from "./share.js";
import { trust } from "./trust.js";

const SIZE = 768;
const begun = anew();

export async function why(root, context) {
  const { picture, answer, known } = context;
  const signal = begun(context.signal);
  const near = answer.predictions.map((prediction) => prediction.label);
  const label = among(near, place.label || near[0]) ?? (await another(answer, signal));
  if (signal.aborted) return;
  const base = { model: answer.model, version: answer.version, label };
  const parts = Object.fromEntries(Object.keys(known).map((method) => [method, figure(method)]));
  const trusted = h("section", { class: "card", id: "trust", "aria-labelledby": "trust-title", hidden: true });
  const again = () => why(root, context);
  const controls = h("div", {}, controlsOf(0, redraw, again));
  const frame = h("div", {});
  fill(
    root,
    heading(t("why_title", { label })),
    classes(answer, label, signal),
    h("div", { class: "pair" }, Object.values(parts).map((part) => part.element)),
    controls,
    trusted,
    explained(known),
    frame,
  );

  const style = (method) => ({
    style: method !== "lime" && place.style === "overlay" ? "heatmap" : place.style,
    opacity: place.opacity,
    size: SIZE,
    ...(method === "lime" && { polarity: place.polarity, top_superpixels: place.top_superpixels }),
  });
  const question = (method) => ({ ...base, method, ...(method === "lime" && { superpixels: place.superpixels }) });
  const found = {};

  async function run(method) {
    const part = parts[method];
    part.wait();
    let over = false;
    const previews = latest(async (job) => {
      try {
        const drawn = await preview(job, style(method), signal);
        if (!over) await part.show(drawn, t("preview_alt", { label }));
      } catch {
        // The next one, or the result, will do.
      }
    });
    try {
      found[method] = await explanation(picture, question(method), {
        signal,
        onProgress(job) {
          part.progress(job);
          if (job.links.preview) previews(job);
        },
      });
      over = true;
      if (signal.aborted) return;
      await draw(method);
      part.done();
      if (method === "lime") {
        const { numbers } = found.lime;
        fill(trusted, trust(numbers));
        trusted.hidden = false;
        fill(controls, controlsOf(numbers.superpixels.length, redraw, again));
        say(t("why_done", { label }));
      }
    } catch (error) {
      if (!signal.aborted) part.fail(error, () => run(method));
    }
  }

  const drawers = Object.fromEntries(
    Object.keys(known).map((method) => [
      method,
      latest(async () => {
        const drawn = await drawing(found[method], style(method), signal);
        parts[method].show(drawn, wordsOf(method, "alt", { label }));
      }),
    ]),
  );
  const draw = (method) => drawers[method]();
  function redraw() {
    for (const method of Object.keys(found)) {
      draw(method).catch((error) => {
        if (!signal.aborted) parts[method].fail(error, again);
      });
    }
    along();
  }
  function along() {
    const commands = Object.keys(known).map((method) =>
      curlAbout(picture, "explain", { ...question(method), ...style(method) }, { save: `why-${method}.png` }),
    );
    const drawings = Object.keys(found).map((method) => ({
      id: `download-${method}`,
      words: wordsOf(method, "download"),
      save: saved(picture, label, method),
      get: () => drawing(found[method], style(method), signal),
    }));
    fill(frame, takeAlong({ picture, command: () => commands.join("\n"), drawings }));
  }

  along();
  for (const part of Object.values(parts)) part.wait();
  // One after the other: they share the process that explains.
  for (const method of quickFirst(known)) {
    await run(method);
    if (signal.aborted) return;
    along();
  }
}

// As the model writes it.
const among = (labels, wanted) =>
  labels.find((label) => label === wanted) ?? labels.find((label) => label.toLowerCase() === wanted.toLowerCase());

// The class that the address names, where it is not among the likely ones; if there is none, the likeliest.
async function another({ model, version, predictions }, signal) {
  const { manifest } = await card(model, version);
  const found = among(manifest.labels, place.label);
  if (found || signal.aborted) return found;
  const { label } = predictions[0];
  tell("no_label", { wanted: place.label, shown: label });
  note({ label: "" });
  return label;
}

function figure(method) {
  const image = h("img", { alt: "", hidden: true });
  const status = h("div", { class: "working" });
  const element = h(
    "figure",
    { class: "explanation", "data-method": method, "aria-busy": "true" },
    h("figcaption", {}, h("strong", {}, wordsOf(method, "name")), h("span", { class: "note" }, wordsOf(method, "more"))),
    h("div", { class: "canvas" }, image, status),
  );
  const bar = h("progress", { max: 1, "aria-label": t("progress") });
  const words = h("p", { class: "note" });
  return {
    element,
    wait() {
      element.setAttribute("aria-busy", "true");
      bar.removeAttribute("value");
      words.textContent = t("waiting");
      status.replaceChildren(bar, words);
    },
    progress({ state, ahead, progress }) {
      if (state === "queued" && ahead) words.textContent = t("queued", { ahead: number(ahead) });
      if (progress) {
        bar.max = progress.total;
        bar.value = progress.done;
        words.textContent = t("progress_words", { done: number(progress.done), total: number(progress.total) });
      }
    },
    async show(blob, alt) {
      image.alt = alt;
      await show(image, blob);
      image.hidden = false;
    },
    done() {
      element.setAttribute("aria-busy", "false");
      status.replaceChildren();
    },
    fail(error, again) {
      element.setAttribute("aria-busy", "false");
      status.replaceChildren(telling(error, again));
    },
  };
}

// Which class the question is about.
function classes(answer, label, signal) {
  const near = answer.predictions.slice(0, 5).map((prediction) => prediction.label);
  const offered = near.includes(label) ? near : [label, ...near];
  const list = h("datalist", { id: "labels" });
  const any = h("input", { id: "any-class", list: "labels", autocomplete: "off", placeholder: t("another_class") });
  const pick = (wanted) => go({ label: wanted === answer.predictions[0].label ? "" : wanted });
  const fillList = () =>
    card(answer.model, answer.version)
      .then(({ manifest }) => !signal.aborted && fill(list, manifest.labels.map((each) => h("option", { value: each }))))
      .catch(() => {});
  any.addEventListener("focus", fillList, { once: true });
  return h(
    "form",
    {
      class: "classes",
      on: {
        submit: (event) => {
          event.preventDefault();
          if (any.value.trim()) pick(any.value.trim());
        },
      },
    },
    h(
      "fieldset",
      { class: "chips" },
      h("legend", {}, t("ask_about")),
      offered.map((each, index) =>
        h(
          "button",
          {
            class: "chip",
            id: `class-${index}`,
            "aria-pressed": String(each === label),
            on: { click: () => pick(each) },
          },
          each,
        ),
      ),
      h("label", { class: "hidden", for: "any-class" }, t("another_class")),
      any,
      list,
      h("button", { type: "submit" }, t("ask")),
    ),
  );
}

function controlsOf(count, redraw, again) {
  const most = Math.max(count, place.top_superpixels, SLIDERS.top_superpixels.usual);
  const radios = (name, change) =>
    h(
      "fieldset",
      { class: "segments" },
      h("legend", {}, t(name)),
      CHOICES[name].map((value) =>
        h(
          "label",
          {},
          h("input", {
            type: "radio",
            name,
            id: `${name}-${value || "auto"}`,
            checked: place[name] === value,
            on: {
              change: () => {
                note({ [name]: value }, { step: true });
                change();
              },
            },
            value,
          }),
          h("span", {}, t(`${name}_${value || "auto"}`)),
        ),
      ),
    );
  const slider = (name, label, told, { min, max, step }) => {
    const output = h("output", { for: name }, told(place[name]));
    return h(
      "label",
      { class: "slider", for: name },
      h("span", {}, label, " ", output),
      h("input", {
        type: "range",
        id: name,
        min,
        max,
        step,
        on: {
          // Browsers let an address be changed only so often: while it is dragged it stays.
          input: (event) => {
            place[name] = event.target.valueAsNumber;
            output.textContent = told(place[name]);
            redraw();
          },
          change: (event) => note({ [name]: event.target.valueAsNumber }),
        },
        value: place[name],
      }),
    );
  };
  return h(
    "div",
    { class: "controls card" },
    slider("top_superpixels", t("shown_regions"), (value) => number(value), { ...SLIDERS.top_superpixels, max: most }),
    slider("opacity", t("opacity"), percent, SLIDERS.opacity),
    radios("polarity", redraw),
    radios("style", redraw),
    radios("superpixels", again),
  );
}

const explained = (known) =>
  h(
    "section",
    { class: "words", "aria-labelledby": "how-title" },
    h("h2", { id: "how-title" }, t("how_title")),
    Object.entries(known).map(([method, says]) => {
      const told = maybe(`method_${method}_why`);
      return fold(`how-${method}`, wordsOf(method, "how"), h("p", { lang: told ? null : "en" }, told ?? says));
    }),
  );
