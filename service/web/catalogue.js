// The models: which versions there are, what became of them, and what training measured.

import { access, address, blob } from "./api.js";
import { byId, fill, h, heading, numbers, show } from "./dom.js";
import { fold, opened } from "./folds.js";
import { number, percent, t } from "./i18n.js";
import { card, listedAgain } from "./models.js";
import { OF_A_VERSION, go, note } from "./place.js";
import { tell, telling } from "./problems.js";

const FEW_LABELS = 24;

export async function catalogue(root, { signal }) {
  const list = h("div", { class: "models" }, h("p", { class: "note" }, t("asking")));
  fill(root, heading(t("view_models")), h("p", { class: "lead" }, t("models_more")), list);
  try {
    const { models } = await listedAgain();
    const drawn = await Promise.all(models.map(modelOf));
    if (signal.aborted) return;
    fill(list, drawn);
    const gone = opened().filter((id) => !byId(id));
    if (!gone.length) return;
    for (const id of gone) tell("gone", { wanted: id.replace(OF_A_VERSION, "$2/$3") });
    note({ open: opened().filter((id) => !gone.includes(id)).join(" ") });
  } catch (error) {
    if (!signal.aborted) fill(list, telling(error, () => catalogue(root, { signal })));
  }
}

async function modelOf({ name, versions, labels }) {
  const shown = await Promise.all([...versions].reverse().map((version) => versionOf(name, version, labels)));
  return h(
    "section",
    { class: "model", "aria-labelledby": `model-${name}` },
    h("h2", { id: `model-${name}` }, name),
    labels.problem && h("p", { class: "problem" }, labels.problem),
    shown,
  );
}

async function versionOf(model, { version, state, engine, reason }, labels) {
  const names = [
    version === labels.stable && t("label_stable"),
    version === labels.canary && t("label_canary", { share: percent(labels.canary_weight) }),
  ].filter(Boolean);
  const head = h(
    "header",
    { class: "row version-head" },
    h("h3", {}, t("version", { version })),
    h("span", { class: `state ${state}` }, t(`state_${state}`)),
    names.map((each) => h("span", { class: "state" }, each)),
    engine && h("span", { class: "note" }, t("engine", { engine })),
  );
  if (state !== "available") {
    return h("article", { class: "card version" }, head, h("p", {}, t(`state_${state}_more`)), reason && h("p", { lang: "en" }, h("code", {}, reason)));
  }
  let manifest;
  try {
    ({ manifest } = await card(model, version));
  } catch (error) {
    return h("article", { class: "card version" }, head, telling(error));
  }
  return h(
    "article",
    { class: "card version" },
    head,
    reason && h("p", { class: "note", lang: "en" }, reason),
    h("p", { lang: "en" }, manifest.description),
    figures(manifest),
    labelsOf(manifest.labels, `labels-${model}-${version}`),
    manifest.limitations && h("p", {}, h("strong", {}, t("limitations")), " ", h("span", { lang: "en" }, manifest.limitations)),
    h("div", { class: "row" }, h("button", { class: "main", on: { click: () => go({ model, version: String(version), view: "see", label: "", layer: "", channel: "" }) } }, t("use"))),
    diagram(model, version),
    report(model, version, manifest),
    fold(`origin-${model}-${version}`, t("origin"), h("p", { lang: "en" }, `${manifest.licence}. ${manifest.attribution}`)),
  );
}

function figures({ input, parameters, labels, layers, metrics, data }) {
  return numbers([
    [t("f_classes"), number(labels.length)],
    [t("f_input"), `${input.width} × ${input.height}`],
    [t("f_layers"), number(layers.length)],
    [t("f_parameters"), number(parameters)],
    metrics && [t("f_accuracy"), percent(metrics.accuracy)],
    metrics && [t("f_top3"), percent(metrics.top3_accuracy)],
    metrics && metrics.calibration_error !== null && [t("f_calibration"), percent(metrics.calibration_error)],
    metrics && metrics.recognition_auroc !== null && [t("f_auroc"), t("of_one", { value: number(metrics.recognition_auroc, 3) })],
    metrics && [t("f_held_out"), number(metrics.images)],
    data && [t("f_trained_on"), number(data.training_images)],
  ].filter(Boolean));
}

function labelsOf(labels, id) {
  const chips = (some) => h("ul", { class: "labels" }, some.map((label) => h("li", {}, label)));
  if (labels.length <= FEW_LABELS) return chips(labels);
  return [chips(labels.slice(0, FEW_LABELS)), fold(id, t("all_labels", { count: number(labels.length) }), chips(labels))];
}

// Something that is fetched once it is looked at.
function later(id, title, load) {
  const body = h("div", {});
  let asked = false;
  const open = async () => {
    if (asked || !element.open) return;
    asked = true;
    fill(body, h("p", { class: "note" }, t("asking")));
    try {
      fill(body, await load());
    } catch (error) {
      asked = false;
      fill(body, telling(error));
    }
  };
  const element = fold(id, title, body);
  element.addEventListener("toggle", open);
  return element;
}

function diagram(model, version) {
  return later(`diagram-${model}-${version}`, t("diagram"), async () => {
    const image = h("img", { class: "diagram", alt: t("diagram_alt", { model }) });
    await show(image, await blob(`models/${encodeURIComponent(model)}/graph`, { params: { version } }));
    const name = `${t("diagram")}: ${model}/${version}`;
    return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": name }, image);
  });
}

function report(model, version, manifest) {
  const files = Object.keys(manifest.files).filter((file) => /^report\/.*\.(png|jpg)$/.test(file));
  if (!files.length) return null;
  const folder = `models/${encodeURIComponent(model)}/versions/${version}/`;
  return later(`report-${model}-${version}`, t("report"), async () => {
    const pictures = await Promise.all(
      files.map(async (file) => {
        const name = file.replace(/^report\//, "").replace(/\.\w+$/, "").replaceAll("-", " ");
        const image = h("img", { alt: name });
        await show(image, await blob(`${folder}${file}`));
        return h("figure", {}, image, h("figcaption", { class: "note", lang: "en" }, name));
      }),
    );
    return [
      // A link shows no key.
      !access.key && h("p", {}, h("a", { href: address(`${folder}report/`), target: "_blank", rel: "noopener" }, t("report_whole"))),
      h("div", { class: "report" }, pictures),
    ];
  });
}
