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
  byId("key").value = dialog.returnValue = "";
  byId("key-cancel").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    const answered = () => {
      if (!dialog.returnValue) return resolve(false);
      const key = byId("key").value.trim();
      // No header carries other characters: no service knows such a key.
      if (!/^[!-~]+$/.test(key)) return resolve(question(true));
      access.keep(key);
      resolve(true);
    };
    dialog.addEventListener("close", answered, { once: true });
  });
}
