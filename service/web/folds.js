// What a reader opens, and what is in it. The address says which are open.

import { h } from "./dom.js";
import { moved, note, place } from "./place.js";

export const opened = () => place.open.split(" ").filter(Boolean);

export function fold(id, title, ...inside) {
  const toggle = () => {
    const others = opened().filter((each) => each !== id);
    if (!element.isConnected || element.open === opened().includes(id)) return;
    note({ open: (element.open ? [...others, id] : others).join(" ") }, { step: true });
  };
  const element = h("details", { id, open: opened().includes(id), on: { toggle } }, h("summary", {}, title), inside);
  return element;
}

moved.addEventListener("noted", () => {
  for (const element of document.querySelectorAll("#view details[id]")) element.open = opened().includes(element.id);
});
