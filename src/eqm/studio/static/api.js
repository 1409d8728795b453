// Requests to the server: answers as values, failures as errors with one sentence.

const TOKEN = "eqm-token";

/** A failed request. `message` is one sentence; `status` is the HTTP status, 0 without an answer. */
export class RequestError extends Error {
  constructor(message, { status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    this.name = "RequestError";
    Object.assign(this, { status, param, retryAfter });
  }
}

/** The JSON that GET `path` returns. */
export async function get(path, { signal } = {}) {
  return (await request(path, { signal })).json();
}

/** The JSON that POST `path` returns. `body` is an object, sent as JSON, or a FormData. */
export async function post(path, body, { signal } = {}) {
  return (await request(path, { method: "POST", signal, ...encoded(body) })).json();
}

/**
 * The last answer of POST `path` with `stream: true`: the data of the event `done`.
 *
 * `onProgress`, `onSample` and `onDone` get the data of the events `progress`, `sample` and `done`.
 * Aborting `signal` cancels the work on the server; the promise then rejects with an AbortError.
 */
export async function stream(path, body, { onProgress, onSample, onDone, signal } = {}) {
  const answer = await request(path, { method: "POST", signal, ...encoded({ ...body, stream: true }) });
  const listeners = { progress: onProgress, sample: onSample, done: onDone };
  for await (const { event, data } of events(answer.body)) {
    if (event === "error") throw failure(answer.status, data);
    listeners[event]?.(data);
    if (event === "done") return data;
  }
  throw new RequestError("The server ended the answer too early. Please try again.");
}

/** Whether an error only says that the user stopped a request. */
export const wasStopped = (error) => error?.name === "AbortError";

/** The server-sent events of a body: `{event, data}`, where data are parsed JSON. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (wasStopped(error)) throw error;
        throw new RequestError("The connection to the server broke. Please try again.");
      });
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const found = { event: "message", data: "" };
        for (const line of block.split(/\r?\n/)) {
          const [, name, text] = /^(\w*): ?(.*)$/.exec(line) ?? [];
          if (name === "event") found.event = text;
          if (name === "data") found.data += text;
        }
        if (found.data) yield { event: found.event, data: JSON.parse(found.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function encoded(body) {
  if (body instanceof FormData) return { body };
  return { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

async function request(path, options) {
  for (let asked = false; ; asked = true) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (wasStopped(error)) throw error;
      throw new RequestError("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    const text = await answer.text();
    if (answer.status !== 401 || !(await askForToken({ again: asked }))) {
      if (answer.status === 401) sessionStorage.removeItem(TOKEN);
      let data = {};
      try {
        data = JSON.parse(text);
      } catch {
        // the answer of a proxy is no JSON: the status says enough
      }
      throw failure(answer.status, data, Number(answer.headers.get("Retry-After")) || null);
    }
  }
}

const MEANING = {
  401: "The server answers only with its token. Reload the page to enter it.",
  404: "The server does not know this address.",
  413: "This is more than the server takes at once. Please send less.",
  429: "The server is busy.",
  503: "The server is closing. Please try again later.",
  504: "The server was not ready in time. Please try again.",
};

function failure(status, data, retryAfter = null) {
  const { message, param } = data?.error ?? {};
  let sentence = status === 401 ? MEANING[401] : message || MEANING[status];
  sentence ||= `The server answered with the status ${status}.`;
  sentence = sentence[0].toUpperCase() + sentence.slice(1);
  if (!/[.!?]$/.test(sentence)) sentence += ".";
  if (retryAfter) sentence += ` Please try again in ${retryAfter} s.`;
  return new RequestError(sentence, { status, param, retryAfter });
}

let asking = null;

/** Asks for the token, once for all requests that wait for it; whether there is one now. `again`: the last was wrong. */
function askForToken({ again }) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    const input = dialog.querySelector("input");
    input.value = "";
    document.getElementById("token-wrong").hidden = !again;
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && input.value.trim();
      if (given) sessionStorage.setItem(TOKEN, given);
      asking = null;
      resolve(Boolean(given));
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}
