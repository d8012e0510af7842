// Server-sent events, read by fetch because EventSource sends no token.
import { request } from "./api.js";

const longest = 30_000; // between two attempts
const silence = 60_000; // after which a stream that sent signs of life is held to be dead

// follow calls take(kind, data) for each event, until signal ends it, and tell({live, since, wait, why}) when that begins or stops.
export async function follow({ take, tell, signal }) {
  let last = null, wait = 1000;
  while (!signal.aborted) {
    let why = "the stream ended";
    const dead = new AbortController();
    try {
      const headers = { Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = last;
      const response = await request("GET", "events", { headers, signal: AbortSignal.any([signal, dead.signal]) });
      tell({ live: true });
      wait = 1000;
      for await (const event of events(response.body, () => dead.abort())) {
        if (event.id) last = event.id;
        take(event.kind, event.data);
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (error.status === 410 || error.status === 400) last = null; // too old to go on after
      why = error.name === "AbortError" ? "nothing was heard for a minute" : error.message;
    }
    tell({ live: false, wait, why });
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(wait * 2, longest);
  }
}

// events reads a stream (the HTML standard, "Server-sent events").
async function* events(body, die) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = {}, timer;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (timer) { clearTimeout(timer); timer = setTimeout(die, silence); }
      rest += value;
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data !== undefined) yield { kind: event.event ?? "message", id: event.id, data: parsed(event.data) };
          event = {};
        } else if (line.startsWith(":")) {
          timer ??= setTimeout(die, silence);
        } else {
          const [, field, text] = /^([^:]*)(?:: ?(.*))?$/.exec(line);
          event[field] = field === "data" && event.data !== undefined ? event.data + "\n" + (text ?? "") : (text ?? "");
        }
      }
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return text; }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
