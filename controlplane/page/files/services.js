// Services: their policies, and what their intake does.
import { el, fill, table } from "./dom.js";
import { number, octets, rate } from "./format.js";
import { sum } from "./rates.js";
import { onChange, world } from "./world.js";

export function show({ root, signal, href }) {
  const cards = el("div"), intake = el("section.card"), dns = el("section.card");
  const update = () => {
    const all = Object.entries(world.topology?.services ?? {}).sort();
    fill(cards, all.length ? all.map(([name, s]) => card(name, s, href)) : el("p.nothing", "There is no service."));
    fill(intake, el("h2", "Intake"), pops());
    fill(dns, el("h2", "DNS"), questions());
  };
  root.append(el("h1", "Services"), cards, intake, dns);
  onChange((kind) => kind !== "live" && update(), signal);
  update();
}

const orAll = (names, what) => (names?.length ? names.join(", ") : `all ${what}`);

function card(name, s, href) {
  const facts = [
    ["PoPs", orAll(s.pops, "PoPs")], ["Clusters", orAll(s.clusters, "clusters")],
    ["Ranked by", s.steering.rank], ["PoPs in an answer", s.steering.answers], ["TTL", s.steering.ttl],
    ["Client subnets", s.steering.ecs], ["When all are down", s.steering.when_all_down],
    ["Rules", s.steering.rules?.length ? s.steering.rules.map((r, i) => r.name || `rules[${i}]`).join(", ") : "none"],
    s.steering.canary && ["Canary", `${Math.round(s.steering.canary.share * 100)} % of clients`],
    ["Accepted when", s.intake.ack], ["Largest body", octets(s.intake.max_body_bytes)], ["Fields", s.intake.required_fields?.join(", ")],
  ].filter(Boolean);
  return el("section.card", el("h2", name), el("dl.facts", facts.map(([k, v]) => el("div", el("dt", k), el("dd", String(v ?? "–"))))),
    el("p.links", el("a", { href: href("explain", { service: name }) }, "Explain"), el("a", { href: href("topology", { object: `services/${name}` }) }, "Look at its text")));
}

function pops() {
  const stats = world.status.activity?.pops ?? {}, { rates } = world;
  return table("Intake by PoP", ["PoP", "#Accepted", "#Forwarded", "#Refused", "#In the spool", "#Dead letters"], Object.keys(stats).sort().map((pop) => {
    const one = stats[pop];
    return [pop, rate(rates.of("pops", pop, "accepted")), rate(rates.of("pops", pop, "forwarded")),
      rate(sum(rates, ["pops", pop], one, (n) => n.startsWith("refused_")) ?? (rates.of("pops", pop, "accepted") === undefined ? undefined : 0)), `${number(one.pending ?? 0)} (${octets(one.pending_bytes ?? 0)})`, number(one.dead_letters ?? 0)];
  }), "No PoP has told what it does.");
}

function questions() {
  const stats = world.status.activity?.dns ?? {}, names = Object.keys(stats).sort();
  return table("DNS counters", ["What", "#Now", "#Since the start"], names.map((n) => [n.replaceAll("_", " "), rate(world.rates.of("dns", n)), number(stats[n])]), "No DNS server has told what it does.");
}
