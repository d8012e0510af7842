// Explain: why clients of an address are answered as they are, and what would be if something else were so.
import { get, now } from "./api.js";
import { el, field, fill, select, table, told } from "./dom.js";
import { isSet, list, ms, percent, place, span } from "./format.js";
import { stated } from "./glyph.js";
import { mapCard } from "./mapcard.js";
import { votes, whoSays } from "./votes.js";
import { services, world } from "./world.js";

export function show({ root, params, signal, href }) {
  const all = services();
  const service = select({ name: "service" }, all, params.get("service") ?? all[0]);
  const client = el("input", { name: "client", value: params.get("client") ?? "", placeholder: "203.0.113.7 or 2001:db8::/48", required: true, spellcheck: "false", autocapitalize: "off", autocomplete: "off", inputmode: "text" });
  const family = select({ name: "family" }, ["A", "AAAA", "HTTPS"], params.get("family") ?? "A");
  const suppose = params.getAll("if").filter(Boolean);
  const supposed = el("ul.chips"), result = el("div", { "aria-live": "polite" }), wrong = el("div");
  const about = el("input", { placeholder: "pop new1 at 1.35,103.8", "aria-label": "Suppose in words", spellcheck: "false", autocapitalize: "off", onkeydown: (e) => { if (e.key === "Enter" && about.value.trim()) { e.preventDefault(); add(about.value); } } });
  const pop = select({ "aria-label": "PoP" }, world.status.pops.map((p) => p.name));
  const how = select({ "aria-label": "would be" }, [["down", "were down"], ["up", "were up"], ["draining", "were drained"]]);

  const chips = () => fill(supposed, suppose.map((text, i) => el("li", el("span", text), el("button.quiet", { type: "button", "aria-label": `Suppose “${text}” no more`, onclick: () => { suppose.splice(i, 1); chips(); if (client.value) explain(); } }, "×"))));
  const add = (text) => {
    suppose.push(text.trim());
    about.value = "";
    chips();
    if (client.value) explain();
    else client.focus();
  };
  const card = mapCard({
    signal,
    say: (at) => [el("button.quiet", { type: "button", onclick: () => add(`pop new1 at ${at.lat.toFixed(2)},${at.lon.toFixed(2)}`) }, "Suppose a new PoP here"), " ",
      el("span.hint", "To see why, type an address from there: rules and measurements go by address.")],
    sayMark: (mark) => !mark.isCluster && el("button.quiet", { type: "button", onclick: () => add(`pop ${mark.name} down`) }, "Suppose it were down"),
  });

  async function explain(event) {
    event?.preventDefault();
    const query = { service: service.value, client: client.value.trim(), family: family.value, if: suppose };
    const address = new URLSearchParams([["service", query.service], ["client", query.client], ["family", query.family], ...suppose.map((s) => ["if", s])]);
    window.history.replaceState(null, "", "#/explain?" + address);
    fill(wrong);
    try {
      const trace = await get("explain", query, signal);
      fill(result, answer(trace, suppose));
      ways(card.map, trace);
    } catch (error) {
      if (signal.aborted) return;
      fill(result);
      told(wrong, "bad", error.message);
    }
  }

  root.append(el("h1", "Why is a client answered as it is?"),
    el("section.card", el("form.row", { onsubmit: explain }, field("Client’s address or prefix", client), field("Service", service), field("Type", family), el("button", { type: "submit" }, "Explain")),
      el("details.suppose", { open: suppose.length > 0 }, el("summary", "What if…"),
        el("div.row", el("span.phrase", "if ", pop, " ", how, " ", el("button.quiet", { type: "button", onclick: () => add(`pop ${pop.value} ${how.value}`) }, "Suppose")), field("or in words", about))), supposed, wrong),
    result, card.element);
  chips();
  if (client.value) explain();
  else client.focus({ preventScroll: true });
}

// answer tells a trace.
function answer(trace, suppose) {
  const where = trace.place ? [trace.place.city, trace.place.country].filter(Boolean).join(", ") || place(trace.place.lat, trace.place.lon) : "place unknown";
  const chosen = (trace.candidates ?? []).filter((c) => c.chosen);
  const facts = [
    ["Everybody in", el("code", trace.scope), "gets this answer"],
    ["Network", el("code", trace.network), `${where}${trace.place?.asn ? `, AS${trace.place.asn}` : ""}${trace.place?.coarse ? ", a coarse place" : ""}`],
    trace.measured && ["Measured as", el("code", trace.measured)],
    trace.rules?.length && ["Rules that fit", trace.rules.join(", ")],
    trace.canary && ["Policy", "the canary"],
    trace.bucket && ["Split with", el("code", trace.bucket)],
    trace.fallback && ["Disregarded", trace.fallback],
  ].filter(Boolean);
  return el("section.card.answer",
    el("h2", trace.answer?.length ? [`${suppose.length ? "Would be answered " : "Answered "}`, el("strong", list(trace.answer)), chosen.length === 1 && `, ${ms(chosen[0].rtt_ms)} away`] : `No answer: ${trace.outcome}`),
    el("dl.facts", facts.map(([name, ...rest]) => el("div", el("dt", name), el("dd", rest.flatMap((r, i) => (i ? [" ", r] : [r])))))),
    el("h3", "All candidates, and why they lost"), candidates(trace.candidates ?? []));
}

function candidates(all) {
  const farthest = Math.max(1, ...all.map((c) => c.rtt_ms));
  const rtt = (c) => {
    const bar = el("span.meter", el("span"));
    bar.firstChild.style.setProperty("inline-size", `${(c.rtt_ms / farthest) * 100}%`);
    const how = c.measured_rtt_ms !== undefined ? `measured ${ms(c.measured_rtt_ms)} by ${c.samples} samples, predicted ${ms(c.predicted_rtt_ms)}` : "predicted";
    return el("span.load", bar, el("span", ms(c.rtt_ms), c.cost_ms > 0 && ` + ${ms(c.cost_ms)} cost`, el("small", ` ${how}`)));
  };
  return table("Candidates", ["#Rank", "PoP", "Round trip", "Health", "Why"], all.map((c, i) => ({
    kind: c.chosen ? "chosen" : null,
    cells: [String(i + 1), stated(`${c.pop}${c.city ? `, ${c.city}` : ""}`, false, c.health === "down" ? "down" : c.state !== "active" || /drain/.test(c.reason) ? "drained" : c.health === "up" ? "well" : "unknown"), rtt(c),
      [c.health, c.verdict?.votes?.of > 1 && ` (${votes(c.verdict)})`, isSet(c.verdict?.since) && ` for ${span(now() - Date.parse(c.verdict.since))}`, c.state !== "active" && `, ${c.state}`, c.share < 1 && `, takes ${percent(c.share)}`], [el(c.chosen ? "strong" : "span", c.reason), whoSays(c.says, `pop/${c.pop}`)]],
  })));
}

function ways(map, trace) {
  if (!trace.place) return map.ways(null, []);
  const to = (trace.candidates ?? []).map((c) => ({ ...world.topology?.pops?.[c.pop]?.location, chosen: c.chosen })).filter((c) => c.lat !== undefined);
  map.ways(trace.place, to.sort((a, b) => Number(a.chosen) - Number(b.chosen)));
}
