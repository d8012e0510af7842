// Who says what of a target.
import { now } from "./api.js";
import { el } from "./dom.js";
import { isSet, list, span } from "./format.js";
import { world } from "./world.js";

// votes tells how many of those that were asked are of the mind of a verdict, such as "5 of 7".
export const votes = (v) => `${v.status === "down" ? v.votes.down : v.votes.up} of ${v.votes.of}`;

// regions tells where a verdict is another one.
export const regions = (v) => list(Object.entries(v.regions ?? {}).filter(([, own]) => own.status !== v.status).map(([name, own]) => `${own.status} in ${name}`));

// sayings are what each vantage says of a target, such as pop/sin1.
export function sayings(target) {
  return (world.status?.vantages ?? []).flatMap((v) => v.statements.filter((s) => s.target === target).map((s) => ({ ...s, vantage: v.name, region: v.region, doubted: Boolean(v.doubted) })));
}

// said is one of them as a sentence.
export function said(s) {
  const since = isSet(s.since) ? ` for ${span(now() - Date.parse(s.since))}` : "";
  return `${s.vantage}${s.region ? ` (${s.region})` : ""}${s.doubted ? ", which is not believed," : ""} says ${s.status}${since}${s.reason ? `: ${s.reason}` : ""}`;
}

const opened = new Set(); // of what a person has opened, which stays so when it is drawn anew

// whoSays is a list of them that opens, or nothing. About tells one list from another.
export function whoSays(all, about) {
  if (!all?.length) return null;
  const toggled = (event) => (event.target.open ? opened.add(about) : opened.delete(about));
  return el("details", { open: opened.has(about), ontoggle: toggled, "data-key": `who-${about}` }, el("summary", "Who says what"), el("ul", all.map((s) => el("li", said(s)))));
}
