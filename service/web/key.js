// Asks for a key, in words, when the service wants one.

import { access } from "./api.js";
import { byId } from "./dom.js";
import { t } from "./i18n.js";

let asked = null;

// Several calls may be refused at once: they share one question.
access.demand = (refused) => {
  asked ??= question(refused).finally(() => (asked = null));
  return asked;
};

function question(refused) {
  const dialog = byId("key-dialog");
  byId("key-why").textContent = t(refused ? "key_wrong" : "key_why");
  byId("key").value = "";
  return new Promise((resolve) => {
    const given = () => {
      const key = byId("key").value.trim();
      if (key) access.keep(key);
      done(key !== "");
    };
    const refusedIt = () => done(false);
    const done = (whether) => {
      byId("key-form").removeEventListener("submit", given);
      dialog.removeEventListener("cancel", refusedIt);
      byId("key-cancel").onclick = null;
      if (dialog.open) dialog.close();
      resolve(whether);
    };
    byId("key-form").addEventListener("submit", given);
    dialog.addEventListener("cancel", refusedIt);
    byId("key-cancel").onclick = refusedIt;
    dialog.showModal();
  });
}
