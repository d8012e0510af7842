// Health: the verdict on each target, since when and why, and who says so.
import { el, fill, table } from "./dom.js";
import { isSet, ms, plural, span } from "./format.js";
import { stated } from "./glyph.js";
import { now } from "./api.js";
import { regions, sayings, votes, whoSays } from "./votes.js";
import { onChange, overrideOn, stateOf, world } from "./world.js";

export function show({ root, signal }) {
  const pops = el("section.card"), clusters = el("section.card"), dns = el("section.card"), vantages = el("section.card"), geo = el("section.card");
  const update = () => {
    fill(pops, el("h2", "PoPs"), verdicts(world.status.pops, false));
    fill(clusters, el("h2", "Clusters"), verdicts(world.status.clusters, true));
    fill(dns, el("h2", "DNS nodes"), nodes(world.status.dns));
    fill(vantages, el("h2", "Vantages"), lookers(world.status.vantages));
    fill(geo, el("h2", "Geo database"), database(world.status.geo));
  };
  root.append(el("h1", "Health"), el("p.lead", "A verdict is what is held to be true of a target. “Not probed yet” counts as well."), pops, clusters, dns, vantages, geo);
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

// who tells how many say so and who says what, and names the operator where a force stands above it.
function who(t, isCluster) {
  const force = overrideOn(t.name, isCluster, "force");
  if (force) return `${force.author}, by a forced verdict: ${force.reason}`;
  return voters(t.health, `${isCluster ? "cluster" : "pop"}/${t.name}`);
}

function voters(v, target) {
  const elsewhere = regions(v), count = v.votes?.of > 1 ? votes(v) : isSet(v.seen) ? "one vantage" : "nobody yet";
  return [`${count}${elsewhere && `; ${elsewhere}`}${v.suspected ? "; suspected" : ""}${v.shedding ? "; sheds" : ""}`, whoSays(sayings(target), target)];
}

const signOf = (v) => ({ up: "well", down: "down", degraded: "drained" })[v.status] ?? "unknown";

function nodes(all) {
  return table("DNS nodes", ["DNS node", "Verdict", "For", "Why", "Who says so", "Address"], all.map((n) => ({
    kind: signOf(n.health),
    cells: [stated(n.name, true, signOf(n.health)), n.health.status, isSet(n.health.since) ? span(now() - Date.parse(n.health.since)) : "–", n.health.reason || "–",
      voters(n.health, `dns/${n.name}`), el("code", n.address)],
  })), "None is looked at from here.");
}

// lookers lists who looks, what they see, and who is not believed.
function lookers(all) {
  return table("Vantages", ["Vantage", "Region", "Sees", "Of itself", "Believed"], all.map((v) => {
    const down = v.statements.filter((s) => s.status === "down");
    return {
      kind: v.doubted ? "down" : null,
      cells: [v.name, v.region || "–", `${plural(v.statements.length, "target")}${down.length ? `, ${down.length} down` : ""}`, v.degraded || (v.shedding ? "sheds" : "–"), v.doubted ? `no: ${v.doubted}` : "yes"],
    };
  }), "This control plane does not look.");
}

function database(geo) {
  if (!geo?.type) return el("p.nothing", "There is none: places come from elsewhere, or are not known.");
  return el("p", `${geo.type}${isSet(geo.built) ? `, built ${span(now() - Date.parse(geo.built))} ago` : ""}. `,
    geo.country_only ? "It places clients by country" + (geo.coarse_countries?.length ? `, which is coarse in ${geo.coarse_countries.join(", ")}.` : ".") : "It places clients by city.");
}
