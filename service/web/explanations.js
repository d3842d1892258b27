// Explanations: asked for as jobs, followed as they go on, drawn by the service.

import { Problem, ask, blob, events, json } from "./api.js";
import { about } from "./pictures.js";

const done = new Map();

// Its numbers, and how to have it drawn. `onProgress` is called with its job as that goes on.
export async function explanation(picture, question, { signal, onProgress }) {
  const name = JSON.stringify([picture.key, question]);
  if (done.has(name)) return done.get(name);
  const atOnce = (call, params, signal) => about(picture, "explain", call, { params: { ...question, ...params, wait: 3600 }, signal });
  const found = await orAtOnce(
    async () => {
      const job = await finished(picture, question, signal, onProgress);
      return { job, numbers: await json(`explanations/${job.id}/result`, { signal }), atOnce };
    },
    async () => ({ numbers: await atOnce(json, { format: "json" }, signal), atOnce }),
  );
  done.set(name, found);
  return found;
}

// A job may have expired, or be another process's: then a call that needs none is asked.
async function orAtOnce(byJob, atOnce) {
  try {
    return await byJob();
  } catch (error) {
    if (error.code !== "unknown_explanation") throw error;
    return atOnce();
  }
}

async function finished(picture, question, signal, onProgress) {
  const started = await about(picture, "explanations", json, {
    params: { ...question, format: "json" },
    signal,
    post: true,
  });
  const job = await followed(started, signal, onProgress);
  if (job.state === "failed") throw new Problem({ ...job.error, status: 410 });
  if (job.state === "cancelled") throw new Problem({ status: 410, code: "explanation_cancelled" });
  return job;
}

async function followed(job, signal, onProgress) {
  let latest = job;
  const underWay = () => latest.state === "queued" || latest.state === "running";
  try {
    while (underWay()) {
      try {
        for await (const { data } of events(`explanations/${job.id}/events`, { signal })) {
          latest = data;
          if (underWay()) onProgress(latest);
        }
      } catch (error) {
        if (error.code !== "unreachable") throw error;
      }
      // A stream may break before the end: another goes on with it.
      if (underWay()) {
        await pause(signal);
        latest = await json(`explanations/${job.id}`, { signal });
      }
    }
    return latest;
  } catch (error) {
    // Nobody waits for it any more, nor perhaps for the page.
    if (signal.aborted) ask(`explanations/${job.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
    throw error;
  }
}

const pause = (signal) =>
  new Promise((resolve) => {
    setTimeout(resolve, 1000);
    signal.addEventListener("abort", resolve, { once: true });
  });

// What begins anew ends what began before: the signal of the one that runs, given that of the page.
export function anew() {
  let last = new AbortController();
  return (signal) => {
    last.abort();
    last = new AbortController();
    return AbortSignal.any([signal, last.signal]);
  };
}

export const preview = (job, style, signal) => blob(`explanations/${job.id}/preview`, { params: style, signal });

export function drawing({ job, atOnce }, style, signal) {
  const params = { ...style, format: "png" };
  const drawnAtOnce = () => atOnce(blob, params, signal);
  return job ? orAtOnce(() => blob(`explanations/${job.id}/result`, { params, signal }), drawnAtOnce) : drawnAtOnce();
}

// Of drawings that are wanted one after the other, such as a slider's, only the last is awaited.
export function latest(work) {
  let wanted = null;
  let running = false;
  return async (...given) => {
    wanted = given;
    if (running) return;
    running = true;
    try {
      while (wanted) {
        const now = wanted;
        wanted = null;
        await work(...now);
      }
    } finally {
      running = false;
    }
  };
}
