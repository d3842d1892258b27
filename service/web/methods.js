// The methods that explain: those that the page has words for, and whichever the service was given beside them.

import { json } from "./api.js";
import { maybe, t } from "./i18n.js";

let asked = null;

// By name, what each says of itself.
export function methods() {
  asked ??= json("web/methods.json").catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

// Grad-CAM takes no time to speak of.
export const quickFirst = (known) => Object.keys(known).sort((a, b) => (b === "gradcam") - (a === "gradcam"));

export function wordsOf(method, part, values) {
  const own = maybe(`method_${method}_${part}`, values);
  if (own) return own;
  const name = method[0].toUpperCase() + method.slice(1).replaceAll("_", " ");
  return part === "name" ? name : t(`method_other_${part}`, { name, ...values });
}
