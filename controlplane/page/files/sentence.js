// The one sentence that says what is well and what is not.
import { now } from "./api.js";
import { isSet, list, plural, span } from "./format.js";
import { isBehind, stateOf } from "./world.js";

const apart = 3; // targets of one kind that are told one by one

// findings are what is not well, the worst first: {level: bad | warn | note, text, about}. About is what a person can look at.
export function findings(status, nodes) {
  const found = [];
  const add = (level, about, text) => found.push({ level, about, text });
  const { pops, clusters } = counted(status);
  if (pops.length && !pops.some((p) => p.answered)) add("bad", "#pops", "no PoP is fit to be answered, so clients get the last resort of their service");
  for (const [targets, what] of [[pops, ""], [clusters, "cluster "]]) {
    const down = targets.filter((t) => t.health.status === "down"), where = what ? "#clusters" : "#pops";
    if (down.length > apart) {
      const named = down.slice(0, apart).map((t) => t.name).join(", ");
      add("bad", where, `${down.length} of ${plural(targets.length, what ? "cluster" : "PoP")} are down: ${named} and ${plural(down.length - apart, "other")}`);
      continue;
    }
    for (const t of down) {
      const since = isSet(t.health.since) ? `, for ${span(now() - Date.parse(t.health.since))}` : "";
      add("bad", where, `${what}${t.name} is down${t.health.reason ? ": " + t.health.reason : ""}${since}`);
    }
  }
  for (const n of (status.dns ?? []).filter((n) => n.health.status === "down")) add("bad", "#nodes", `DNS node ${n.name} is down: ${n.health.reason}`);
  const worn = pops.filter((p) => p.health.status === "degraded");
  if (worn.length) add("warn", "#pops", `${names(worn)} ${worn.length === 1 ? "is" : "are"} degraded: ${worn[0].health.reason}`);
  for (const v of (status.vantages ?? []).filter((v) => v.doubted)) add("warn", "#nodes", `${v.name} is not believed: ${v.doubted}`);
  if (status.alone) add("warn", "#nodes", "this control plane hears no other vantage, and goes by its own probes (local view)");
  const faults = status.faults ?? [];
  if (faults.length) add("bad", "#faults", `a newer topology is invalid and not in force: ${plural(faults.length, "fault")}`);
  for (const o of (status.overrides ?? []).filter((o) => !o.expired)) add("warn", "#overrides", overridden(o));
  for (const [targets, what] of [[pops, ""], [clusters, "cluster "]]) {
    for (const t of targets.filter((t) => t.state !== "active")) add("warn", what ? "#clusters" : "#pops", `${what}${t.name} is ${t.state} by the topology`);
  }
  const ignored = status.ignored ?? [];
  if (ignored.length) add("warn", "#faults", `${plural(ignored.length, "override, key or secret is", "overrides, keys or secrets are")} invalid and without effect`);
  const behind = (nodes ?? []).filter(isBehind);
  if (behind.length) add("warn", "#nodes", `${list(behind.map((n) => n.name))} ${behind.length === 1 ? "has" : "have"} not taken up the newest topology`);
  const unseen = [...pops, ...clusters.map((c) => ({ ...c, name: "cluster " + c.name }))].filter((t) => t.health.status === "unknown");
  if (unseen.length) add("note", "#pops", `${names(unseen)} ${unseen.length === 1 ? "has" : "have"} not been probed yet`);
  return found;
}

const names = (targets) => (targets.length > 4 ? plural(targets.length, "target") : list(targets.map((t) => t.name)));
const counted = (status) => ({ pops: status.pops ?? [], clusters: status.clusters ?? [] });

// overridden says what an override does.
export function overridden(o) {
  const target = o.cluster ? "cluster " + o.cluster : o.pop ?? o.service ?? "";
  const what = { drain: "drained", force: `forced ${o.verdict ?? ""}`.trim(), pin: "pinned" + (o.share === undefined ? "" : ` to ${Math.round(o.share * 100)} %`) }[o.kind] ?? o.kind;
  return `${target} is ${what} by ${o.author || "somebody"} for ${span(Date.parse(o.expires) - now())} more`;
}

// summary counts who is well.
export function summary(status) {
  const { pops, clusters } = counted(status);
  let all = true;
  const part = (targets, isCluster, one) => {
    const well = targets.filter((t) => ["well", "unknown"].includes(stateOf(t, isCluster))).length;
    all &&= well === targets.length;
    if (well !== targets.length) return `${well} of ${plural(targets.length, one)}`;
    return targets.length === 1 ? `the ${one}` : `all ${plural(targets.length, one)}`;
  };
  const parts = [pops.length && part(pops, false, "PoP"), clusters.length && part(clusters, true, "cluster")].filter(Boolean);
  if (!parts.length) return "There is no PoP and no cluster yet.";
  if (all) parts[1] = parts[1]?.replace(/^all /, "");
  const text = `${list(parts.filter(Boolean))} ${pops.length + clusters.length === 1 ? "is" : "are"} well.`;
  return text[0].toUpperCase() + text.slice(1);
}

const shown = 4;

// sentence puts it together: its parts, how bad it is, and the same without times for those who hear it.
export function sentence(status, nodes) {
  const found = findings(status, nodes);
  const urgent = found.filter((f) => f.level !== "note");
  const all = summary(status);
  if (!urgent.length) return { level: "well", parts: [{ text: all }], also: found.map((f) => f.text), spoken: all };
  const parts = urgent.slice(0, shown).map((f, i) => ({ ...f, text: i ? f.text : f.text.replace(/^(a newer|no PoP|cluster) /, (words) => words[0].toUpperCase() + words.slice(1)) }));
  const also = [summary(status), ...found.filter((f) => f.level === "note").map((f) => f.text)];
  return {
    level: urgent.some((f) => f.level === "bad") ? "bad" : "warn", parts, more: urgent.length - parts.length, also,
    spoken: urgent.map((f) => f.text.replace(/,? for \d+ \w+( more)?$/, "")).join("; "),
  };
}
