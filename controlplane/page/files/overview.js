// The overview: the map, and tables of all that is.
import { el, fill, table } from "./dom.js";
import { list, number, octets, percent, rate, span, when } from "./format.js";
import { stated } from "./glyph.js";
import { mapCard, meter } from "./mapcard.js";
import { get, now } from "./api.js";
import { isBehind, mayWrite, onChange, stateOf, world } from "./world.js";
import { endOverride, overrideRows } from "./overrides.js";

export function show({ root, signal, href }) {
  const card = mapCard({
    signal,
    say: (at) => [el("a", { href: href("explain", { if: `pop new1 at ${at.lat.toFixed(2)},${at.lon.toFixed(2)}` }) }, "What if there were a PoP here?")],
    sayMark: (mark) => !mark.isCluster && [el("a", { href: href("explain", { if: `pop ${mark.name} down` }) }, "What if it were down?"), " ",
      mayWrite() && el("a", { href: href("overrides", { pop: mark.name }) }, "Drain it")],
  });
  const parts = Object.fromEntries(["faults", "pops", "clusters", "bgp", "overrides", "nodes"].map((id) => [id, el("section.card", { id, tabindex: -1 })]));
  const update = () => {
    const status = world.status;
    faults(parts.faults, status);
    diagnose(href);
    fill(parts.pops, el("h2", "PoPs"), table("PoPs", ["PoP", "Place", "Standing", "Load", "Share", "Spool", ""], status.pops.map((p) => popRow(p, href)), "There is no PoP."), shares(status.spill));
    fill(parts.clusters, el("h2", "Clusters"), table("Clusters", ["Cluster", "Place", "Standing", "Stores", ""], status.clusters.map((c) => clusterRow(c, href)), "There is no cluster."));
    bgp(parts.bgp, status.bgp ?? []);
    fill(parts.overrides, el("h2", "Overrides"), table("Overrides", ["On", "What", "Reason", "By", "Ends", ""], overrideRows(status.overrides, (o) => endOverride(o)), "Nothing is drained, forced or pinned."));
    fill(parts.nodes, el("h2", "Nodes"), nodes());
  };
  root.append(el("h1.spoken", "Overview"), card.element, ...Object.values(parts));
  onChange((kind) => kind !== "live" && update(), signal);
  update();
}

function faults(part, status) {
  const all = [...(status.faults ?? []).map((f) => ["not in force", f]), ...(status.ignored ?? []).map((f) => ["ignored", f])];
  part.hidden = !all.length;
  if (!all.length) return;
  const why = status.faults?.length ? "A newer topology is stored but invalid, so the last good one stays in force." : "These have no effect until they are mended.";
  fill(part, el("h2", "What is invalid"), el("p", why), culprits, table("Faults", ["Where", "What is wrong", "Effect"], all.map(([effect, f]) => [el("code", f.path), f.message, effect])));
}

// culprits says which edits made the stored topology invalid; it is asked for once for each revision.
const culprits = el("p");
let diagnosed = 0;
async function diagnose(href) {
  const { status } = world;
  if (!status.faults?.length) return;
  if (diagnosed === status.revision) return;
  diagnosed = status.revision;
  try {
    const found = await get("doctor");
    const edits = (found.culprits ?? []).map((e) => `edit ${e.revision} by ${e.author}`);
    fill(culprits, edits.length > 0 && [`It was valid until ${list(edits)}. `, el("a", { href: href("history"), "data-key": "to-history" }, "Look at the history")]);
  } catch {
    fill(culprits); // the faults themselves are told below
  }
}

function standing(t, isCluster) {
  const since = t.health.since && !t.health.since.startsWith("0001") ? ` for ${span(now() - Date.parse(t.health.since))}` : "";
  switch (stateOf(t, isCluster)) {
    case "down": return `down${since}: ${t.health.reason || "no reason told"}`;
    case "drained": return (t.health.status === "degraded" && t.state === "active" ? `degraded${since}: ${t.health.reason}` : t.why) || (t.state === "active" ? "drained" : t.state);
    case "unknown": return "not probed yet; counts as well";
    default: return t.why || `up${since}`;
  }
}

function popRow(p, href) {
  const stats = world.status.activity?.pops?.[p.name], capacity = p.load?.capacity_rps ?? world.topology?.pops?.[p.name]?.capacity_rps;
  const spool = stats?.pending === undefined ? "–" : stats.pending ? `${stats.pending} (${octets(stats.pending_bytes ?? 0)})` : "empty";
  return {
    kind: stateOf(p, false),
    cells: [stated(p.name, false, stateOf(p, false)), `${p.city || ""} ${p.country}`.trim(), standing(p, false),
      meter(world.rates.of("pops", p.name, "accepted") ?? p.load?.requests_rps, capacity), share(p.load), spool, mayWrite() && el("a", { href: href("overrides", { pop: p.name }), "data-key": "drain-" + p.name, "aria-label": `Drain or undrain ${p.name}` }, "Drain…")],
  };
}

// share is what a PoP is to get of all requests, and what it gets.
function share(load) {
  if (!load || (load.wanted === undefined && load.realised === undefined)) return "–";
  const of = (part) => (part === undefined ? "–" : percent(part));
  return el("span", { title: "of all requests: what it is to get by the shares in force, and what it gets" }, `${of(load.wanted)}, gets ${of(load.realised)}`);
}

// shares tells what was changed last for the sake of full PoPs, and which losses would overload others.
function shares(spill) {
  if (!spill) return null;
  const why = { overload: "a PoP had too much", gain: "clients could be nearer", return: "there was room again", loss: "of what a loss would do" };
  const lines = [];
  if (spill.last) {
    const shifts = (spill.last.shifts ?? []).slice(0, 6).map((s) => `${s.pop} ${s.by > 0 ? "+" : "−"}${percent(Math.abs(s.by))}`);
    lines.push(el("p", `Shares were changed ${span(now() - Date.parse(spill.last.at))} ago, because ${why[spill.last.why] ?? spill.last.why}: ${percent(spill.last.moved)} of the requests moved${shifts.length ? ` (${list(shifts)})` : ""}.`));
  }
  if (spill.over_rps > 0) lines.push(el("p", el("strong", `PoPs get ${number(spill.over_rps)} requests a second more than they can do.`)));
  const risks = spill.risks ?? [], more = risks.length - 3 + (spill.more_risks ?? 0);
  for (const r of risks.slice(0, 3)) lines.push(el("p", `If ${r.lost} were lost, ${r.pop} would get ${number(r.load_rps)} requests a second, and can do ${number(r.capacity_rps)}.`));
  if (more > 0) lines.push(el("p", `A loss would overload ${more} more.`));
  return el("div", { id: "shares" }, lines);
}

function clusterRow(c, href) {
  return {
    kind: stateOf(c, true),
    cells: [stated(c.name, true, stateOf(c, true)), `${c.city || ""} ${c.country}`.trim(), standing(c, true), rate(world.rates.of("clusters", c.name, "stored")),
      mayWrite() && el("a", { href: href("overrides", { cluster: c.name }), "data-key": "drain-cluster-" + c.name, "aria-label": `Drain or undrain cluster ${c.name}` }, "Drain…")],
  };
}

// bgp shows what nodes announce, where any does.
function bgp(part, announcers) {
  part.hidden = !announcers.length;
  if (part.hidden) return;
  const words = { stays: "announces", wants: "drains", dead: "drains: its service does not work" };
  const rows = announcers.flatMap((a) => a.prefixes.map((p) => ({
    kind: p.standing === "dead" ? "down" : null, cells: [a.node, el("code", p.prefix), words[p.standing] ?? "withdrawn"],
  })));
  fill(part, el("h2", "BGP"), table("BGP", ["Node", "Prefix", "Standing"], rows, "Nothing is announced."));
}

function nodes() {
  if (!world.nodes) return el("p.nothing", "Not known.");
  return table("Nodes", ["Node", "Kind", "Version", "Up since", "Topology"], world.nodes.map((n) => ({
    kind: isBehind(n) ? "behind" : null,
    cells: [el("span", n.name, n.leader && el("span.tag", "leader")), n.kind, n.version, when(n.started),
      isBehind(n) ? el("strong", `behind: has ${n.topology_revision}`) : `revision ${n.topology_revision}`],
  })), "No node has told that it lives.");
}

