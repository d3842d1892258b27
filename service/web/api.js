// Calls of the service: a key where there is one, and problems as exceptions.

const ROOT = new URL("../", import.meta.url);
const STORED = "sichtbar-key";

// What a call failed with: RFC 9457's problem, or that there was no answer at all.
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", detail = "", retryAfter }) {
    super(detail || code);
    Object.assign(this, { status, code, detail, retryAfter });
  }
}

export const access = {
  key: stored(),
  // Asks the reader for a key; whether there is a new one. Set by key.js.
  demand: async () => false,
  keep(key) {
    access.key = key;
    try {
      sessionStorage.setItem(STORED, key);
    } catch {
      // Then it is forgotten with the page.
    }
  },
};

function stored() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return "";
  }
}

export function address(path, params = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

export async function ask(path, { params, method = "GET", body, signal, keepalive } = {}) {
  const shown = access.key;
  const headers = shown ? { authorization: `Bearer ${shown}` } : {};
  const response = await come(fetch(address(path, params), { method, body, headers, signal, keepalive }));
  if (response.ok) return response;
  const problem = await problemOf(response);
  // Meanwhile another call may have been given one.
  if (problem.status === 401 && (access.key !== shown || (await access.demand(shown !== "")))) {
    return ask(path, { params, method, body, signal, keepalive });
  }
  throw problem;
}

export const json = async (path, options) => come((await ask(path, options)).json());
export const blob = async (path, options) => come((await ask(path, options)).blob());

// What a connection brings; one that fails or breaks does so as a TypeError.
async function come(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof TypeError) throw new Problem({ detail: error.message });
    throw error;
  }
}

async function problemOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // A proxy's own error page.
  }
  return new Problem({
    status: response.status,
    code: told.code ?? "no_problem",
    detail: told.detail ?? `HTTP ${response.status}`,
    retryAfter: Number(response.headers.get("retry-after")),
  });
}

// Server-sent events. An EventSource could show no key.
export async function* events(path, { signal } = {}) {
  const response = await ask(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await come(reader.read());
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("event")) yield { name: field("event"), data: JSON.parse(field("data")) };
    }
  }
}
