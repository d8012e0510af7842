// Health: the verdict on each target, since when and why, and who says so.
import { el, fill, table } from "./dom.js";
import { isSet, ms, span } from "./format.js";
import { stated } from "./glyph.js";
import { now } from "./api.js";
import { onChange, overrideOn, stateOf, world } from "./world.js";

export function show({ root, signal }) {
  const pops = el("section.card"), clusters = el("section.card"), geo = el("section.card");
  const update = () => {
    fill(pops, el("h2", "PoPs"), verdicts(world.status.pops, false));
    fill(clusters, el("h2", "Clusters"), verdicts(world.status.clusters, true));
    fill(geo, el("h2", "Geo database"), database(world.status.geo));
  };
  root.append(el("h1", "Health"), el("p.lead", "A verdict is what is held to be true of a target. “Not probed yet” counts as well."), pops, clusters, geo);
  onChange((kind) => kind !== "live" && update(), signal);
  update();
}

function verdicts(targets, isCluster) {
  return table(isCluster ? "Clusters" : "PoPs", [isCluster ? "Cluster" : "PoP", "Verdict", "For", "Why", "Who says so", "Last look", "Addresses"], targets.map((t) => {
    const v = t.health;
    return {
      kind: stateOf(t, isCluster),
      cells: [stated(t.name, isCluster, stateOf(t, isCluster)), v.status, isSet(v.since) ? span(now() - Date.parse(v.since)) : "–", v.reason || "–", who(t, isCluster),
        isSet(v.seen) ? `${span(now() - Date.parse(v.seen))} ago, took ${ms((v.last_took ?? 0) / 1e6)}` : "–", el("span.addresses", (t.address ?? []).map((a) => el("code", a)))],
    };
  }));
}

// who names the vantages behind a verdict as far as it tells them, and the operator where a force stands above it.
function who(t, isCluster) {
  const force = overrideOn(t.name, isCluster, "force");
  if (force) return `${force.author}, by a forced verdict: ${force.reason}`;
  const said = t.health.vantages ?? t.health.by;
  if (Array.isArray(said) && said.length) return said.map((s) => (typeof s === "string" ? s : s.name)).join(", ");
  return isSet(t.health.seen) ? "the prober of this control plane" : "nobody yet";
}

function database(geo) {
  if (!geo?.type) return el("p.nothing", "There is none: places come from elsewhere, or are not known.");
  return el("p", `${geo.type}${isSet(geo.built) ? `, built ${span(now() - Date.parse(geo.built))} ago` : ""}. `,
    geo.country_only ? "It places clients by country" + (geo.coarse_countries?.length ? `, which is coarse in ${geo.coarse_countries.join(", ")}.` : ".") : "It places clients by city.");
}
