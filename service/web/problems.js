// What went wrong, in words, and what to do.

import { Problem } from "./api.js";
import { h } from "./dom.js";
import { maybe, number, t } from "./i18n.js";

export function telling(error, again) {
  const known = error instanceof Problem;
  if (!known) console.error(error);
  const code = known ? error.code : "page_failed";
  const wait = { seconds: number(error.retryAfter ?? 1) };
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-what" }, maybe(`problem_${code}`, wait) ?? t("problem_other", { status: error.status })),
    h("p", {}, maybe(`advice_${code}`, wait) ?? t("advice_other")),
    error.detail && h("details", {}, h("summary", {}, t("problem_said")), h("p", { lang: "en" }, h("code", {}, error.detail))),
    again && h("button", { type: "button", on: { click: again } }, t("again")),
  );
}
