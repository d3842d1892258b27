// Pictures come in: dropped, pasted, chosen, photographed.

import { byId } from "./dom.js";
import { moved } from "./place.js";

let take = () => {};

export function takesIn(handler) {
  take = handler;
  for (const id of ["files", "camera-file"]) {
    byId(id).addEventListener("change", (event) => {
      hand([...event.target.files]);
      // The same file may be chosen again.
      event.target.value = "";
    });
  }
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) hand(files);
  });
  let inside = 0;
  const veil = (shown) => (byId("veil").hidden = !shown);
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carriesFiles(event) && veil(++inside > 0));
  addEventListener("dragleave", (event) => carriesFiles(event) && veil((inside = Math.max(0, inside - 1)) > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil((inside = 0) > 0);
    hand([...(event.dataTransfer?.files ?? [])]);
  });
}

const hand = (files) => files.length && take(files.map((file) => ({ content: file, name: file.name || "picture" })));

export const choose = () => byId("files").click();

export async function photograph() {
  // A phone's own camera does it better.
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices) return byId("camera-file").click();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch {
    // There is none, or it may not be used: a file will do.
    return choose();
  }
  const dialog = byId("camera-dialog");
  const video = byId("camera");
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  video.srcObject = stream;
  try {
    await video.play();
  } catch {
    stop();
    return choose();
  }
  dialog.addEventListener("close", stop, { once: true });
  moved.addEventListener("moved", () => dialog.close(), { once: true });
  byId("camera-cancel").onclick = () => dialog.close();
  byId("camera-take").onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((content) => take([{ content, name: "photograph.jpg" }]), "image/jpeg", 0.92);
    dialog.close();
  };
  dialog.showModal();
}
