// What can be taken along: the link, the call behind what is shown, the drawing.

import { access, address } from "./api.js";
import { fill, h, say } from "./dom.js";
import { fold } from "./folds.js";
import { t } from "./i18n.js";
import { link } from "./place.js";
import { telling } from "./problems.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A call as a command line. `file`: the name of the picture that is sent along, where one is.
export function curl(path, params, { file, save } = {}) {
  const parts = ["curl"];
  if (access.key) parts.push('-H "Authorization: Bearer $SICHTBAR_API_KEY"');
  if (file) parts.push(`-F ${quoted(`file=@"${file.replace(/["\\]/g, "\\$&")}"`)}`);
  if (save) parts.push(`-o ${quoted(save)}`);
  return [...parts, quoted(address(path, params).href)].join(" ");
}

// A call about a picture, which is named by its id or sent along.
export function curlAbout(picture, path, params, given = {}) {
  return picture.id
    ? curl(path, { ...params, image_id: picture.id }, given)
    : curl(path, params, { ...given, file: picture.name });
}

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = t("copied");
    say(t("copied"));
  } catch {
    // Only pages from here or by HTTPS may write there.
    say(t("copy_by_hand"));
    button.textContent = t("copy_by_hand");
  }
}

const copier = (id, key, text) =>
  h("button", { id, on: { click: (event) => copy(text(), event.currentTarget) } }, t(key));

// What a drawing of a picture is saved as.
export const saved = (picture, ...about) => `${[picture.name.replace(/\.\w+$/, ""), ...about].join("-")}.png`;

export function takeAlong({ picture, command, drawings = [] }) {
  const told = h("div", {});
  const download = async (get, save) => {
    fill(told);
    try {
      keep(await get(), save);
    } catch (error) {
      fill(told, telling(error));
    }
  };
  return h(
    "section",
    { class: "along", "aria-label": t("along") },
    h(
      "div",
      { class: "row" },
      picture.id ? copier("copy-link", "copy_link", () => link().href) : h("p", { class: "note" }, t("no_link")),
      copier("copy-curl", "copy_curl", command),
      drawings.map(({ id, words, save, get }) =>
        h("button", { id, on: { click: () => download(get, save) } }, words),
      ),
    ),
    told,
    fold("call", t("call"), h("pre", { tabindex: "0" }, h("code", {}, command()))),
  );
}

function keep(content, name) {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
