// The map with its choice of colours, its legend and what it says about a place: on the overview and in explain.
import { get } from "./api.js";
import { Cells, tints } from "./cells.js";
import { el, fill, select } from "./dom.js";
import { sign } from "./glyph.js";
import { WorldMap, cellText, legend } from "./map.js";
import { onChange, overrideOn, services, stateOf, world } from "./world.js";
import { number, rate } from "./format.js";

const again = 10_000; // after a map could not be read

const chosen = { by: "rtt", family: "A", service: "" }; // stays from view to view

// marksOf are all PoPs and clusters with their places, which the topology knows.
export function marksOf() {
  const all = [];
  for (const [kind, isCluster] of [["pops", false], ["clusters", true]]) {
    for (const target of world.status?.[kind] ?? []) {
      const location = world.topology?.[kind]?.[target.name]?.location;
      if (!location) continue;
      const state = stateOf(target, isCluster);
      const accepted = isCluster ? undefined : world.rates.of("pops", target.name, "accepted");
      const load = accepted === undefined ? "" : `, ${rate(accepted)} accepted`;
      all.push({ name: target.name, isCluster, state, lat: location.lat, lon: location.lon,
        title: `${isCluster ? "Cluster" : "PoP"} ${target.name}, ${target.city || target.country}: ${state}${load}` });
    }
  }
  return all;
}

// mapCard returns {element, map}; say(at, cell) may return elements that stand behind what the card says about a place.
export function mapCard({ signal, say, sayMark }) {
  const readout = el("p.readout", { role: "status" }, "Point at a place, or move a mark by the arrow keys, to see who answers there.");
  const keys = el("div.keys"), told = el("p.hint");
  let cells = null, colours = [], drawn = "";
  const map = new WorldMap({
    signal, label: "The world with its PoPs and clusters.",
    pick: (at) => {
      const cell = cells?.at(at.lat, at.lon);
      fill(readout, cellText(at, cell, cells), " ", say?.(at, cell));
    },
    pickMark: (mark) => fill(readout, mark.title + ". ", sayMark?.(mark)),
  });
  const by = el("fieldset.choice", el("legend", "Colours"), [["rtt", "Round-trip time"], ["pop", "PoP"], ["land", "None"]].map(([value, text]) => el("label",
    el("input", { type: "radio", name: "by", value, checked: chosen.by === value, "data-key": "by-" + value, onchange: () => { chosen.by = value; refresh(); } }), text)));
  const family = select({ "aria-label": "Addresses", onchange: () => { chosen.family = family.value; refresh(); } }, [["A", "IPv4"], ["AAAA", "IPv6"]], chosen.family);
  const service = el("span");
  const bar = el("div.bar", by, el("span.selects", service, family));

  // refresh asks for the map when it could be another one.
  async function refresh() {
    if (!services().includes(chosen.service)) chosen.service = services()[0] ?? "";
    fill(service, services().length > 1 && select({ "aria-label": "Service", "data-key": "map-service", onchange: (e) => { chosen.service = e.target.value; refresh(); } },
      services(), chosen.service));
    map.marks(marksOf());
    const fit = (world.status?.pops ?? []).map((p) => [p.name, p.answered, overrideOn(p.name, false)?.name]);
    const wanted = JSON.stringify([chosen, world.status?.topology_revision, fit]);
    if (wanted === drawn) return;
    drawn = wanted;
    try {
      if (chosen.by === "land" || !chosen.service) cells = null;
      else {
        const found = await get("map", { service: chosen.service, family: chosen.family, by: chosen.by }, signal);
        cells = found.rows?.length ? new Cells(found) : null;
      }
      if (wanted !== drawn) return; // another one is under way
      colours = cells && tints(cells, cells.pops.map((p) => world.topology?.pops?.[p]?.location ?? { lat: 0, lon: 0 }), 8);
      fill(told);
    } catch (error) {
      if (signal.aborted) return;
      cells = null;
      setTimeout(() => { if (!signal.aborted && wanted === drawn) { drawn = ""; refresh(); } }, again);
      fill(told, `No colours: ${error.message}.`);
    }
    map.colour(cells, chosen.by, colours);
    fill(keys, cells && legend(chosen.by, cells.pops, colours), signs());
  }
  onChange((kind) => ["status", "read", "topology", "overrides"].includes(kind) && refresh(), signal);
  refresh();
  return { element: el("section.card.mapcard", { "aria-label": "Map" }, bar, map.element, keys, told, readout), map };
}

// signs explains the marks.
function signs() {
  const one = (isCluster, state, text) => el("li", sign(isCluster, state), text);
  return el("ul.legend", { "aria-label": "Signs" }, one(false, "well", "PoP"), one(true, "well", "cluster"),
    one(false, "drained", "drained"), one(false, "down", "down"), one(false, "unknown", "not probed yet"));
}

// meter is a load beside its capacity.
export function meter(now, capacity) {
  if (now === undefined) return el("span.faint", "–");
  if (!capacity) return rate(now);
  const bar = el("span.meter", { role: "img", "aria-label": `${Math.round((now / capacity) * 100)} percent of the capacity` }, el("span"));
  bar.firstChild.style.setProperty("inline-size", `${Math.min(100, (now / capacity) * 100)}%`);
  if (now > capacity * 0.9) bar.classList.add("high");
  return el("span.load", bar, el("span", `${rate(now)} of ${number(capacity)}`));
}
