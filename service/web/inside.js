// Inside: the network from picture to softmax, what each layer makes of the picture, and its filters.

import { blob, json } from "./api.js";
import { curl, curlAbout, takeAlong } from "./share.js";
import { fill, h, heading, say, show } from "./dom.js";
import { number, percent, significant, maybe, t } from "./i18n.js";
import { CHOICES, go, note, place } from "./place.js";
import { about } from "./pictures.js";
import { tell, telling } from "./problems.js";
import { softmax } from "./softmax.js";

// No layer's name begins so.
const SOFTMAX = "~softmax";
const STRONGEST = 5;
const walks = new Map();

export async function inside(root, context) {
  const { picture, answer, signal } = context;
  const row = h("div", {});
  const detail = h("div", { class: "detail", id: "detail" });
  const frame = () => fill(root, heading(t("inside_title")), h("p", { class: "lead" }, t("inside_more")), row, detail);
  // Who goes from layer to layer stays among them.
  const among = document.activeElement?.closest(".layer");
  if (!among) frame();
  let walk;
  try {
    walk = await walked(picture, answer, signal);
  } catch (error) {
    if (signal.aborted) return;
    frame();
    fill(detail, telling(error, () => inside(root, context)));
    return;
  }
  if (signal.aborted) return;
  const first = walk.layers.find((layer) => layer.filters) ?? walk.layers[0];
  const input = { name: "input", type: "Input", shape: [walk.input.height, walk.input.width, 3], filters: false };
  const known = [input, ...walk.layers, { name: SOFTMAX }];
  let layer = place.layer ? known.find((each) => each.name === place.layer) : first;
  if (!layer) {
    tell("no_layer", { wanted: place.layer, shown: first.name });
    note({ layer: "", channel: "" });
    layer = first;
  }
  const { name } = layer;
  fill(row, layersOf(walk, name, picture));
  if (among) frame();
  keepInSight(row.querySelector("[aria-current]"), row.firstElementChild);
  if (name === SOFTMAX) await softmax(detail, { picture, walk, answer, signal });
  else await layerDetail(detail, { ...context, layer });
}

// In the middle of what scrolls, also when that becomes narrower.
function keepInSight(element, around) {
  const middle = () => element.offsetLeft - around.offsetLeft + (element.offsetWidth - around.clientWidth) / 2;
  new ResizeObserver(() => (around.scrollLeft = middle())).observe(around);
}

// Without an id there is no walk: then the layers alone.
async function walked(picture, answer, signal) {
  const { model, version } = answer;
  const name = `${picture.key}/${model}/${version}`;
  if (!walks.has(name)) {
    const walk = picture.id
      ? await about(picture, "walk", json, { params: { model, version, top_k: 10 }, signal })
      : await json(`models/${encodeURIComponent(model)}/versions/${version}/layers`, { signal });
    walks.set(name, walk);
  }
  return walks.get(name);
}

const size = (shape) => shape.map((length) => number(length)).join(" × ");

function layersOf(walk, current, picture) {
  const tallest = Math.max(walk.input.height, walk.input.width);
  const step = (name, title, kind, drawn) =>
    h(
      "li",
      {},
      h(
        "button",
        {
          class: "layer",
          id: `layer-${name}`,
          "aria-current": name === current ? "true" : null,
          on: { click: () => go({ layer: name, channel: "" }) },
        },
        h("span", { class: "layer-drawn", "aria-hidden": "true" }, drawn),
        h("span", { class: "layer-name" }, title),
        h("span", { class: "layer-kind" }, kind),
      ),
    );
  const block = (shape) => {
    const flat = shape.length === 1;
    // Heights as rows are; widths by how many channels, each doubling the same again.
    const tall = flat ? 0.9 : Math.max(0.12, shape[0] / tallest);
    const wide = flat ? 0.06 : Math.min(1, Math.log2(shape.at(-1) + 1) / 11);
    return h("span", { class: flat ? "block flat" : "block", vars: { "--tall": tall, "--wide": wide } });
  };
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": t("layers") },
    h(
      "ol",
      { class: "layers" },
      step("input", t("picture"), size([walk.input.height, walk.input.width, 3]), h("img", { src: picture.url, alt: "" })),
      walk.layers.map((layer) => step(layer.name, layer.name, `${layer.type} ${size(layer.shape)}`, block(layer.shape))),
      step(
        SOFTMAX,
        t("layer_softmax"),
        t("layer_softmax_kind"),
        h("span", { class: "steps" }, [0.35, 1, 0.2, 0.12].map((share) => h("span", { vars: { "--tall": share } }))),
      ),
    ),
  );
}

async function layerDetail(root, { picture, answer, signal, layer }) {
  const { model, version } = answer;
  const params = { model, version, layer: layer.name };
  const spatial = layer.shape.length === 3;
  const showsFilters = layer.filters && place.aspect === "filters";
  const grid = h("div", { class: "grid-of-maps" });
  const one = h("div", { class: "one" });
  const frame = h("div", {});
  const redo = () => layerDetail(root, { picture, answer, signal, layer });
  const facts = layer.mean === undefined
    ? null
    : h(
        "p",
        { class: "note" },
        t("layer_facts", {
          parameters: number(layer.parameters),
          sparsity: percent(layer.sparsity),
          dead: number(layer.dead_channels),
        }),
      );
  fill(
    root,
    h(
      "div",
      { class: "card" },
      h("h2", { id: "detail-title" }, layer.name === "input" ? t("picture") : layer.name),
      h("p", {}, maybe(`layer_${layer.type}`) ?? t("layer_other", { type: layer.type })),
      facts,
      layer.filters &&
        h(
          "div",
          { class: "row segments-row", role: "group", "aria-label": t("aspect") },
          CHOICES.aspect.map((name) =>
            h(
              "button",
              {
                id: `aspect-${name}`,
                "aria-pressed": String(place.aspect === name),
                on: {
                  click: () => {
                    note({ aspect: name }, { step: true });
                    redo();
                  },
                },
              },
              t(`aspect_${name}`),
            ),
          ),
        ),
      h("div", { class: "maps" }, grid, one),
    ),
    frame,
  );
  const filtersAt = `models/${encodeURIComponent(model)}/filters`;
  const command = () => {
    const channel = (spatial || showsFilters) && place.channel !== "" ? { channel: place.channel } : {};
    if (showsFilters) return curl(filtersAt, { version, layer: layer.name, ...channel }, { save: "filters.png" });
    const given = { ...params, ...channel, ...(place.over === "true" && "channel" in channel && { over: true }) };
    return curlAbout(picture, "activations", given, { save: "maps.png" });
  };
  const along = () => fill(frame, takeAlong({ picture, command }));
  along();

  const get = (given, call) =>
    showsFilters
      ? call(filtersAt, { params: { version, layer: layer.name, ...given }, signal })
      : about(picture, "activations", call, { params: { ...params, ...given }, signal });
  fill(grid, h("p", { class: "note", role: "status" }, t("drawing")));
  try {
    if (layer.name === "input") {
      const image = h("img", { class: "input-seen", alt: t("input_alt", { model }) });
      await show(image, await get({}, blob));
      fill(grid, image);
      return;
    }
    const [statistics, drawn] = await Promise.all([get({ format: "json" }, json), get({}, blob)]);
    if (signal.aborted) return;
    await gridOf(grid, one, { picture, params, statistics, drawn, layer, spatial, showsFilters, get, signal, filtersAt, along });
  } catch (error) {
    if (!signal.aborted) fill(grid, telling(error, redo));
  }
}

async function gridOf(root, one, { picture, params, statistics, drawn, layer, spatial, showsFilters, get, signal, filtersAt, along }) {
  const { grid, channels } = statistics;
  const count = channels.length;
  let filters = null;
  const image = h("img", { alt: t(showsFilters ? "filters_alt" : "maps_alt", { layer: layer.name, count: number(count) }) });
  const marker = h("span", { class: "marker", "aria-hidden": "true", hidden: true });
  // The last line may have room left, which the service leaves white.
  const blank = h("span", { class: "blank", "aria-hidden": "true", hidden: grid.channels % grid.columns === 0 });
  const field = h("input", {
    type: "number",
    id: "channel",
    min: 0,
    max: count - 1,
    on: { change: () => choose(field.valueAsNumber) },
    value: place.channel,
  });
  const strongest = channels
    .filter((channel) => !channel.dead)
    .sort((a, b) => b.mean - a.mean)
    .slice(0, STRONGEST);
  await show(image, drawn);
  if (signal.aborted) return;
  image.addEventListener("click", (event) => {
    const scale = image.naturalWidth / image.clientWidth;
    const column = Math.floor((event.offsetX * scale) / (grid.cell_width + grid.gap));
    const line = Math.floor((event.offsetY * scale) / (grid.cell_height + grid.gap));
    const channel = line * grid.columns + column;
    if (column < grid.columns && channel < grid.channels) choose(channel);
  });
  const step = (by, key) =>
    h(
      "button",
      { class: "icon", id: `channel${by}`, "aria-label": t(key), on: { click: () => choose((field.valueAsNumber || 0) + by) } },
      by < 0 ? "‹" : "›",
    );
  fill(
    root,
    h("div", { class: "marked" }, image, blank, marker),
    h("p", { class: "note" }, t(showsFilters ? "filters_hint" : "maps_hint")),
    h(
      "div",
      { class: "row channel" },
      h("label", { for: "channel" }, t("channel")),
      step(-1, "channel_before"),
      field,
      step(1, "channel_after"),
      !showsFilters &&
        h(
          "span",
          { class: "chips" },
          h("span", { class: "note" }, t("strongest")),
          strongest.map(({ channel }) =>
            h("button", { class: "chip", id: `strong-${channel}`, on: { click: () => choose(channel) } }, String(channel)),
          ),
        ),
    ),
  );

  const { left, top } = corner(grid.channels);
  lay(blank, { left, top, width: 1 - left, height: 1 - top });

  function choose(wanted) {
    const channel = Math.min(count - 1, Math.max(0, Math.round(wanted) || 0));
    field.value = channel;
    note({ channel: String(channel) });
    mark(channel);
    large(channel);
  }
  function mark(channel) {
    marker.hidden = channel >= grid.channels;
    const size = { width: grid.cell_width / image.naturalWidth, height: grid.cell_height / image.naturalHeight };
    lay(marker, { ...corner(channel), ...size });
  }
  // As shares of the picture.
  function corner(channel) {
    const [line, column] = [Math.floor(channel / grid.columns), channel % grid.columns];
    return {
      left: (grid.gap + column * (grid.cell_width + grid.gap)) / image.naturalWidth,
      top: (grid.gap + line * (grid.cell_height + grid.gap)) / image.naturalHeight,
    };
  }
  function lay(element, shares) {
    for (const [name, share] of Object.entries(shares)) element.style[name] = `${100 * share}%`;
  }

  // One filter, out of the picture of all.
  async function cutOut(canvas, channel) {
    const given = { params: { version: params.version, layer: layer.name }, signal };
    filters ??= Promise.all([json(filtersAt, { params: { ...given.params, format: "json" }, signal }), blob(filtersAt, given)]);
    const [{ grid: place }, all] = await filters;
    if (channel >= place.channels) return;
    const [line, column] = [Math.floor(channel / place.columns), channel % place.columns];
    const corner = [column * (place.cell_width + place.gap), line * (place.cell_height + place.gap)];
    const cut = await createImageBitmap(all, ...corner.map((at) => at + place.gap), place.cell_width, place.cell_height);
    [canvas.width, canvas.height] = [cut.width, cut.height];
    canvas.getContext("2d").drawImage(cut, 0, 0);
    canvas.hidden = false;
  }

  async function large(channel) {
    along();
    const facts = channels[channel];
    const map = h("img", { alt: "", hidden: true });
    const kernel = h("canvas", { class: "kernel", role: "img", hidden: true, "aria-label": t("filter_alt", { channel: number(channel), layer: layer.name }) });
    fill(
      one,
      h("h3", {}, t(showsFilters ? "filter_one" : "map_one", { channel: number(channel) })),
      h("figure", {}, map),
      showsFilters && h("p", { class: "note" }, t("filter_hint")),
      h(
        "p",
        { class: "note" },
        t(facts.dead ? "map_dead" : "map_facts", {
          mean: significant(facts.mean),
          max: significant(facts.max),
          min: significant(facts.min),
          sparsity: percent(facts.sparsity),
        }),
      ),
      !showsFilters &&
        spatial &&
        h(
          "label",
          { class: "check", for: "over" },
          h("input", {
            type: "checkbox",
            id: "over",
            checked: place.over === "true",
            on: {
              change: (event) => {
                note({ over: String(event.target.checked) }, { step: true });
                large(channel);
              },
            },
          }),
          t("over"),
        ),
      !showsFilters && layer.filters && h("figure", { class: "made-by" }, h("figcaption", { class: "note" }, t("made_by")), kernel),
    );
    if (!spatial && !showsFilters) return;
    try {
      const drawnMap = await get({ channel, over: !showsFilters && place.over === "true" ? true : null }, blob);
      map.alt = t(showsFilters ? "filter_alt" : "map_alt", { channel: number(channel), layer: layer.name });
      await show(map, drawnMap);
      map.hidden = false;
      say(map.alt);
      if (!showsFilters && layer.filters) await cutOut(kernel, channel);
    } catch (error) {
      if (!signal.aborted) fill(one, telling(error, () => large(channel)));
    }
  }

  const usual = strongest[0]?.channel ?? 0;
  if (place.channel && !(/^\d+$/.test(place.channel) && Number(place.channel) < count)) {
    tell("no_channel", { wanted: place.channel, layer: layer.name, last: number(count - 1), shown: number(usual) });
    note({ channel: "" });
  }
  if (place.channel) choose(Number(place.channel));
  else {
    mark(usual);
    field.value = usual;
    await large(usual);
  }
}
