// Drain, force, pin: temporary decisions with a reason and an end, and whether a drain is safe.
import { ask as request, get, name, now } from "./api.js";
import { effect } from "./changes.js";
import { ask } from "./dialog.js";
import { el, field, fill, select, table, told } from "./dom.js";
import { span, when } from "./format.js";
import { overridden } from "./sentence.js";
import { mayWrite, onChange, overrideOn, world } from "./world.js";

const kinds = [["drain", "Drain: no new clients"], ["up", "Force: hold it to be up"], ["down", "Force: hold it to be down"], ["pin", "Pin: the share of its clients that it keeps"]];
const lengths = [["15", "15 minutes"], ["60", "1 hour"], ["240", "4 hours"], ["1440", "1 day"], ["10080", "7 days"], ["", "until…"]];

export function show({ root, params, signal }) {
  const inEffect = el("section.card");
  const update = () => fill(inEffect, el("h2", "In effect"), table("Overrides", ["On", "What", "Reason", "By", "Ends", ""], overrideRows(world.status.overrides, endOverride), "Nothing is drained, forced or pinned."));
  root.append(el("h1", "Drain"), el("p.lead", "Overrides take effect at once, even while the stored topology is invalid, and end by themselves."), form(params, signal), inEffect);
  onChange((kind) => kind !== "live" && update(), signal);
  update();
}

// overrideRows are rows of a table of overrides; end is called for the one to end.
export function overrideRows(all, end) {
  return (all ?? []).map((o) => ({
    kind: o.expired ? "over" : null,
    cells: [o.cluster ? `cluster ${o.cluster}` : o.pop, what(o), o.reason, o.author || "–", o.expired ? "has ended" : `in ${span(Date.parse(o.expires) - now())}`,
      mayWrite() && el("button.quiet", { type: "button", "data-key": "end-" + o.name, onclick: () => end(o), "aria-label": `End ${o.name}` }, o.expired ? "Remove" : o.kind === "drain" ? "Undrain" : "End")],
  }));
}

const what = (o) => ({ drain: "drained", force: `forced ${o.verdict}`, pin: `pinned to ${Math.round((o.share ?? 1) * 100)} %` })[o.kind] ?? o.kind;

// endOverride ends one after a question.
export function endOverride(o) {
  const target = o.cluster ? `cluster ${o.cluster}` : o.pop;
  return ask({
    title: o.expired ? `Remove ${o.name}?` : o.kind === "drain" ? `Undrain ${target}?` : `End “${what(o)}” on ${target}?`,
    contents: el("p", o.expired ? "It has ended already, and is only kept for you to see." : `${sentenceOf(o)}, because: ${o.reason}. Clients are answered by health and topology again, at once.`),
    act: o.expired ? "Remove" : o.kind === "drain" ? "Undrain" : "End it",
    go: () => request("DELETE", `overrides/${name(o.name)}`),
  });
}

const sentenceOf = (o) => overridden(o).replace(/^./, (c) => c.toUpperCase());

function form(params, signal) {
  const wanted = params.get("cluster") ? "cluster " + params.get("cluster") : params.get("pop") ?? "";
  const targets = [...world.status.pops.map((p) => [p.name, `${p.name}, ${p.city || p.country}`]), ...world.status.clusters.map((c) => ["cluster " + c.name, `cluster ${c.name}, ${c.city || c.country}`])];
  const target = select({ name: "target", onchange: () => changed() }, targets, wanted);
  const kind = select({ name: "kind", onchange: () => changed() }, kinds);
  const share = el("input", { name: "share", type: "number", min: 0, max: 100, step: 1, value: "50" });
  const length = select({ name: "length", onchange: () => changed() }, lengths, "60");
  const until = el("input", { name: "until", type: "datetime-local" });
  const reason = el("input", { name: "reason", required: true, maxlength: 500, placeholder: "power works in rack 4", autocomplete: "off" });
  const shareField = field("Keeps, in percent", share), untilField = field("Until", until);
  const verdict = el("div.safety", { "aria-live": "polite" }), done = el("div"), button = el("button", { type: "submit" });
  let safety, asked = 0;

  const cluster = () => (target.value.startsWith("cluster ") ? target.value.slice(8) : "");
  async function changed() {
    const drains = kind.value === "drain";
    for (const option of kind.options) option.disabled = option.value === "pin" && Boolean(cluster());
    if (cluster() && kind.value === "pin") kind.value = "drain";
    shareField.hidden = kind.value !== "pin";
    untilField.hidden = length.value !== "";
    until.required = length.value === "";
    button.textContent = { drain: "Drain", up: "Force up", down: "Force down", pin: "Pin" }[kind.value] + " " + target.value;
    safety = undefined;
    if (!target.value || !(drains || kind.value === "down")) return fill(verdict);
    const mine = ++asked;
    fill(verdict, el("p.hint", "Looking whether that is safe…"));
    try {
      const found = await get("safe", cluster() ? { cluster: cluster() } : { pop: target.value }, signal);
      if (mine !== asked) return;
      safety = found;
      fill(verdict, el(`p.answer.${safety.safe ? "yes" : "no"}`, el("strong", safety.safe ? "Yes, it is safe" : "No, it is not safe"), ` to lose ${target.value} now, because:`),
        el("ul", (safety.because ?? []).map((b) => el("li", b))), safety.effect?.length > 0 && el("details", el("summary", "What it does to clients"), effect(safety.effect)));
    } catch (error) {
      if (!signal.aborted && mine === asked) told(verdict, "bad", `Whether it is safe cannot be told: ${error.message}.`);
    }
  }

  async function submit(event) {
    event.preventDefault();
    const expires = new Date(length.value ? now() + Number(length.value) * 60_000 : until.value);
    const force = ["up", "down"].includes(kind.value);
    const override = { schema: 1, kind: force ? "force" : kind.value, ...(cluster() ? { cluster: cluster() } : { pop: target.value }), reason: reason.value, expires: expires.toISOString() };
    if (force) override.verdict = kind.value;
    if (kind.value === "pin") override.share = Number(share.value) / 100;
    const id = `${override.kind}-${cluster() ? "cluster-" + cluster() : target.value}`;
    const text = `${target.value} is ${what(override)} until ${when(override.expires)}.`;
    const put = () => request("PUT", `overrides/${name(id)}`, { body: override });
    const doubt = safety && !safety.safe;
    fill(done);
    try {
      if (doubt) {
        const yes = await ask({ title: `${button.textContent} although it is not safe?`, contents: el("ul", safety.because.map((b) => el("li", b))), act: button.textContent, danger: true, go: put });
        if (!yes) return;
      } else await put();
      told(done, "good", text);
      reason.value = "";
    } catch (error) {
      told(done, "bad", error.message);
    }
  }

  changed();
  const standing = el("p.hint");
  const note = () => {
    const o = overrideOn(cluster() || target.value, Boolean(cluster()));
    fill(standing, o && `${sentenceOf(o)}.`);
  };
  onChange((what) => what === "status" && note(), signal);
  target.addEventListener("change", note);
  note();
  return el("form.card", { onsubmit: submit }, el("div.row", field("PoP or cluster", target), mayWrite() && field("What", kind), mayWrite() && shareField, mayWrite() && field("For", length), mayWrite() && untilField),
    standing, verdict, mayWrite() && [el("div.row", field("Reason, for everyone who wonders", reason), button)], done);
}
