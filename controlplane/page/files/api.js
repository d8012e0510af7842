// The control API under /v1/, asked with a token that is kept for this tab only.

const kept = "isochrone.token";

// Problem is an answer that is no success: a problem document (RFC 9457), or no answer at all (status 0).
export class Problem extends Error {
  constructor(status, detail, faults) {
    super(detail);
    this.status = status;
    this.faults = faults ?? [];
  }
}

export const token = () => sessionStorage.getItem(kept);
export const keep = (value) => sessionStorage.setItem(kept, value);
export const forget = () => sessionStorage.removeItem(kept);

// takeFromAddress takes a token out of #token=…, and removes it from the address bar and from the tab's history.
export function takeFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  let value = found[1];
  try { value = decodeURIComponent(value); } catch { /* then it stands for itself */ }
  keep(value);
  history.replaceState(null, "", location.pathname + location.search + "#/");
}

let onRefused = () => {};
// whenRefused calls back when the token is refused, whatever was asked.
export const whenRefused = (f) => { onRefused = f; };

let skew = 0;
// now is the server's time, as far as its answers tell, so that a wrong clock here makes no wrong durations.
export const now = () => Date.now() + skew;

const address = (path, query) => {
  const url = new URL("v1/" + path, document.baseURI.replace(/#.*$/, ""));
  for (const [key, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") url.searchParams.append(key, one);
  }
  return url;
};

// request sends one and returns the response when it is a success.
export async function request(method, path, { query, body, headers, signal } = {}) {
  const all = new Headers(headers);
  if (token()) all.set("Authorization", "Bearer " + token());
  if (body !== undefined && typeof body !== "string") {
    body = JSON.stringify(body);
    all.set("Content-Type", "application/json");
  }
  let response;
  try {
    response = await fetch(address(path, query), { method, body, headers: all, signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "the control plane cannot be reached");
  }
  const date = Date.parse(response.headers.get("Date"));
  if (date && Math.abs(date - Date.now() - skew) > 2000) skew = date - Date.now();
  if (response.ok) return response;
  const text = await response.text();
  let told = {};
  try { told = JSON.parse(text); } catch { /* not a problem document: the status has to do */ }
  const problem = new Problem(response.status, told.detail || told.title || `the control plane answered ${response.status}`, told.faults);
  if (response.status === 401) onRefused(problem);
  throw problem;
}

// ask returns the answer's JSON, and undefined for an empty answer.
export async function ask(method, path, options) {
  const text = await (await request(method, path, options)).text();
  return text ? JSON.parse(text) : undefined;
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });

// name makes a part of a path of a name.
export const name = encodeURIComponent;
