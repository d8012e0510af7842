// History: every edit of the topology, what differs between any two, the way back; and the audit of all writes.
import { ask as request, get } from "./api.js";
import { changes, effect, summary, unified, warnings } from "./changes.js";
import { ask } from "./dialog.js";
import { el, field, fill, table, told } from "./dom.js";
import { when } from "./format.js";
import { mayWrite, onChange, world } from "./world.js";

export function show({ root, params, signal }) {
  const edits = pages("history", (p) => p.entries, signal), audit = pages("audit", (p) => p.entries, signal);
  const list = el("section.card"), difference = el("section.card", { tabindex: -1, hidden: true, "aria-live": "polite" }), audited = el("section.card"), wrong = el("div");
  let from = Number(params.get("from")) || 0, to = Number(params.get("to")) || 0;

  const radio = (which, revision) => el("input", { type: "radio", name: which, value: revision, "data-key": `${which}-${revision}`, checked: (which === "from" ? from : to) === revision, "aria-label": `${which} revision ${revision}`,
    onchange: () => { if (which === "from") from = revision; else to = revision; draw(); } });

  function draw() {
    const newest = edits.all[0]?.revision;
    fill(list, el("h2", "Edits of the topology"),
      table("Edits", ["Edit", "When", "By", "What", "From", "To", ""], edits.all.map((e, i) => ({
        kind: e.valid ? null : "invalid",
        cells: [el("span", String(e.revision), !e.valid && el("span.tag.bad", "invalid"), e.revision === world.status.topology_revision && el("span.tag", "in force")), when(e.time), e.author || "–",
          [e.message && el("span.message", e.message), el("span.faint", summary(e.changes))], radio("from", e.revision), radio("to", e.revision),
          el("span.buttons", edits.all[i + 1] && el("button.quiet", { type: "button", "data-key": "see-" + e.revision, onclick: () => compare(edits.all[i + 1].revision, e.revision), "aria-label": `What edit ${e.revision} changed` }, "See"),
            mayWrite() && e.valid && e.revision !== newest && el("button.quiet", { type: "button", "data-key": "back-" + e.revision, onclick: () => rollback(e), "aria-label": `Back to ${e.revision}` }, "Back to this…"))],
      })), "There is no edit yet."),
      el("div.buttons", el("button", { type: "button", id: "compare", disabled: !from || !to || from === to, onclick: () => compare(from, to) }, from && to ? `Compare ${from} with ${to}` : "Choose two to compare"), edits.next && el("button.quiet", { type: "button", onclick: () => edits.read(true) }, "Older")));
    fill(audited, el("h2", "Audit of all writes"), table("Audit", ["When", "By", "Action", "Objects"], audit.all.map((a) => [when(a.time), a.author || "–", a.action, el("span.objects", (a.objects ?? []).slice(0, 8).map((o) => el("code", o)), a.objects?.length > 8 && ` and ${a.objects.length - 8} more`)]), "Nothing was written yet."),
      audit.next && el("button.quiet", { type: "button", onclick: () => audit.read(true) }, "Older"));
  }

  async function compare(a, b) {
    difference.hidden = false;
    fill(difference, el("p.hint", "Comparing…"));
    try {
      const found = await get("diff", { from: a, to: b, effect: 1 }, signal);
      fill(difference, el("h2", `From ${a} to ${b}`), changes(found.changes), el("h3", "What it does to clients"), effect(found.effect), el("h3", "As text"), unified(found.text));
      difference.focus({ preventScroll: true });
      difference.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (!signal.aborted) told(difference, "bad", error.message);
    }
  }

  async function rollback(entry) {
    let plan;
    try {
      plan = await request("POST", "rollback", { body: { revision: entry.revision, dry_run: true } });
    } catch (error) {
      return told(wrong, "bad", error.message);
    }
    const base = edits.all[0]?.revision;
    const message = el("input", { value: `back to ${entry.revision}`, maxlength: 500 });
    const done = await ask({
      title: `Make the topology what it was at ${entry.revision}?`, act: "Go back to it", danger: true,
      contents: [el("p", "That is a new edit: nothing of the history is lost."), changes(plan.changes), warnings(plan.warnings), el("h3", "What it does to clients"), effect(plan.effect), field("Message", message)],
      go: () => request("POST", "rollback", { body: { revision: entry.revision, message: message.value, base } }),
    });
    if (done) {
      told(wrong, "good", `The topology is what it was at ${entry.revision}${done.revision ? `, as revision ${done.revision}` : ""}.`);
      edits.read();
      audit.read();
    }
  }

  edits.onRead = audit.onRead = (error) => (error ? told(wrong, "bad", error.message) : draw());
  root.append(el("h1", "History"), wrong, list, difference, audited);
  onChange((kind) => { if (["history", "topology"].includes(kind)) edits.read(); if (["history", "overrides", "topology"].includes(kind)) audit.read(); }, signal);
  edits.read();
  audit.read();
  if (from && to) compare(from, to);
}

// pages reads a list page by page; a new reading begins at the newest.
function pages(path, entries, signal) {
  const list = {
    all: [], next: "", onRead: () => {},
    async read(more) {
      try {
        const page = await get(path, { limit: 50, after: more ? list.next : "" }, signal);
        list.all = more ? [...list.all, ...(entries(page) ?? [])] : entries(page) ?? [];
        list.next = page.next ?? "";
        list.onRead();
      } catch (error) {
        if (!signal.aborted) list.onRead(error);
      }
    },
  };
  return list;
}
