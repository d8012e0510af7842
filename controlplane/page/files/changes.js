// What an edit changes, and what that does to clients.
import { el, table } from "./dom.js";
import { ms, percent, plural } from "./format.js";

const value = (json) => (json === null || json === undefined ? "–" : typeof json === "string" ? json : JSON.stringify(json));

// changes lists what differs, object by object.
export function changes(all) {
  if (!all?.length) return el("p.nothing", "Nothing changes.");
  return el("ul.changes", all.map((c) => el("li", el(`span.change.${c.kind}`, c.kind), " ", el("code", c.object),
    c.kind === "changed" && c.fields?.length > 0 && el("ul", c.fields.map((f) => el("li", el("code", f.path), ": ", el("del", value(f.from)), " → ", el("ins", value(f.to))))))));
}

// summary says in a few words what an edit changed.
export function summary(all) {
  if (!all?.length) return "nothing";
  const shown = all.slice(0, 3).map((c) => `${c.object} ${c.kind}`).join(", ");
  return all.length > 3 ? `${shown} and ${plural(all.length - 3, "more", "more")}` : shown;
}

// effect tells what happens to the clients of each service.
export function effect(all) {
  if (!all?.length) return el("p.hint", "What it does to clients could not be foreseen.");
  if (all.every((e) => !e.moved && !e.unserved && !e.overloaded?.length)) return el("p", "No client is answered otherwise.");
  return el("div.effect", all.map((e) => el("section", el("h4", `${e.service}, ${e.family === "AAAA" ? "IPv6" : "IPv4"}`),
    el("p", `${percent(e.moved)} of clients are answered otherwise. `, e.unserved > 0 && el("strong.bad", `${percent(e.unserved)} get no answer. `),
      e.overloaded?.length > 0 && el("strong.bad", `Over capacity: ${e.overloaded.join(", ")}. `)),
    el("dl.figures", figure("median round trip", e.p50_ms), figure("95 of 100 within", e.p95_ms)),
    e.moves?.length > 0 && table("Moves", ["From", "To", "#Of all clients"], e.moves.slice(0, 6).map((m) => [m.from || "no answer", m.to || "no answer", percent(m.share)])))));
}

const figure = (name, pair) => pair && el("div", el("dt", name), el("dd", Math.abs(pair[0] - pair[1]) < 0.05 ? ms(pair[1]) : `${ms(pair[0])} → ${ms(pair[1])}`));

// warnings are what is likely not meant.
export function warnings(all) {
  return all?.length > 0 && el("div.told.warn", el("p", "Likely not meant:"), el("ul", all.map((w) => el("li", el("code", w.path), ": ", w.message))));
}

// unified shows a unified diff.
export function unified(text) {
  if (!text) return null;
  return el("pre.unified", { tabindex: 0, "aria-label": "Difference as text" }, text.split("\n").map((line) => {
    const kind = /^(\+\+\+|---|@@)/.test(line) ? "meta" : { "+": "plus", "-": "minus" }[line[0]];
    return kind ? el("span." + kind, line + "\n") : line + "\n";
  }));
}
