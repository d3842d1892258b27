// Words in the reader's language.

const LANGUAGES = ["en", "de"];
const STORED = "sichtbar-language";
let words = {};
export let language = "en";

function first() {
  let chosen = "";
  try {
    chosen = localStorage.getItem(STORED) ?? "";
  } catch {
    // Then the browser's.
  }
  const wished = [chosen, ...navigator.languages].map((tag) => tag.slice(0, 2));
  return wished.find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

export async function speak(wished = first()) {
  const response = await fetch(new URL(`words/${wished}.json`, import.meta.url));
  words = await response.json();
  language = wished;
  document.documentElement.lang = wished;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
}

export async function speakOther() {
  await speak(language === "en" ? "de" : "en");
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // Then for this visit alone.
  }
}

// The words of a key, with {names} filled in; null where there are none, for keys made of what the service says.
export function maybe(key, values = {}) {
  return words[key]?.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "") ?? null;
}

export const t = (key, values) => maybe(key, values) ?? key;

const LEAST = 0.0001;
const shares = (share, digits) =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(share);

export function percent(share) {
  // 99.97 % is not certain, and 0.02 % not impossible.
  if (share > 0 && share < LEAST) return `< ${shares(LEAST, 2)}`;
  if (share < 1 && share > 1 - LEAST) return `> ${shares(1 - LEAST, 2)}`;
  return shares(share, share > 0.995 || share < 0.005 ? 2 : share > 0.095 ? 0 : 1);
}

const minus = (written) => written.replace("-", "−");

export const number = (value, digits = 0, least = 0) =>
  minus(new Intl.NumberFormat(language, { minimumFractionDigits: least, maximumFractionDigits: digits }).format(value));

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

export function significant(value, digits = 3) {
  const format = new Intl.NumberFormat(language, { maximumSignificantDigits: digits });
  if (value === 0 || Math.abs(value) >= 0.001) return minus(format.format(value));
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  const raised = String(-exponent).replace(/\d/g, (digit) => RAISED[digit]);
  return `${minus(format.format(value / 10 ** exponent))} × 10⁻${raised}`;
}
