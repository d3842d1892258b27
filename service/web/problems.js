// What went wrong, in words, and what to do.

import { Problem, access } from "./api.js";
import { byId, h } from "./dom.js";
import { maybe, number, t } from "./i18n.js";
import { moved } from "./place.js";

export function telling(error, again) {
  const known = error instanceof Problem;
  if (!known) console.error(error);
  const code = known ? error.code : "page_failed";
  const wait = { seconds: number(error.retryAfter || 1) };
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-what" }, maybe(`problem_${code}`, wait) ?? t("problem_other", { status: error.status })),
    h("p", {}, maybe(`advice_${code}`, wait) ?? t(error.retryAfter ? "advice_wait" : "advice_other", wait)),
    error.detail && h("details", {}, h("summary", {}, t("problem_said")), h("p", { lang: "en" }, h("code", {}, error.detail))),
    again && h("button", { on: { click: () => retry(again) } }, t("again")),
    code === "forbidden" && h("button", { on: { click: otherKey } }, t("key_other")),
  );
}

// It may allow anything on the page.
async function otherKey() {
  if (await access.demand(false)) moved.dispatchEvent(new Event("moved"));
}

// The button goes, the title stays.
function retry(again) {
  byId("view-title").focus({ preventScroll: true });
  again();
}

// What the address asks for and is not here, and what is shown instead; without a key nothing, any more.
export function tell(key, { wanted = "", ...values } = {}) {
  const told = byId("told");
  const short = wanted.length > 160 ? `${wanted.slice(0, 160)}…` : wanted;
  told.textContent = key && `${told.textContent} ${t(key, { wanted: short, ...values })}`.trim();
  told.hidden = !key;
}
