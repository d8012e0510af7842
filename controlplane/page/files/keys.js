// API keys of clients: made, rotated and revoked. A secret is shown once, when it is made.
import { ask as request, get, name } from "./api.js";
import { ask, show as tell } from "./dialog.js";
import { el, field, fill, select, table, told } from "./dom.js";
import { isSet, number, when } from "./format.js";
import { mayWrite, services } from "./world.js";

export function show({ root, signal }) {
  const list = el("section.card"), wrong = el("div");
  let keys = [], next = "", search = "";
  const find = el("input", { type: "search", placeholder: "id, note or service", oninput: () => { search = find.value.toLowerCase(); draw(); } });

  async function read(more) {
    try {
      const page = await get("keys", { limit: 100, after: more ? next : "" }, signal);
      keys = more ? [...keys, ...(page.keys ?? [])] : page.keys ?? [];
      next = page.next ?? "";
      draw();
    } catch (error) {
      if (!signal.aborted) told(wrong, "bad", error.message);
    }
  }

  function draw() {
    const shown = keys.filter((k) => !search || [k.id, k.note, ...(k.services ?? [])].some((t) => t?.toLowerCase().includes(search)));
    fill(list, table("Keys", ["Key", "Note", "Services", "#A minute", "From", "Made", "Ends", ""], shown.map((k) => ({
      kind: k.expired ? "over" : null,
      cells: [[el("code", k.id), k.probe && el("span.tag", "probe")], k.note || "–", [k.services?.length ? k.services.join(", ") : "all", k.warnings?.map((w) => el("span.tag", w))], number(k.quota_per_minute), k.from?.length ? k.from.join(", ") : "anywhere", when(k.created),
        k.expired ? "has ended" : isSet(k.expires) ? when(k.expires) : "never",
        mayWrite() && el("span.buttons", el("button.quiet", { type: "button", "data-key": "rotate-" + k.id, "aria-label": `Rotate ${k.id}`, onclick: () => rotate(k) }, "Rotate"),
          el("button.quiet", { type: "button", "data-key": "revoke-" + k.id, "aria-label": `Revoke ${k.id}`, onclick: () => revoke(k) }, "Revoke"))],
    })), search ? "No key is like that among those that are shown." : "There is no key."), next && el("button.quiet", { type: "button", onclick: () => read(true) }, "More"));
  }

  async function create() {
    const all = services(), chosen = all.map((s) => el("input", { type: "checkbox", value: s }));
    const quota = el("input", { type: "number", min: 1, value: "1000", required: true });
    const expires = el("input", { type: "date" });
    const from = el("input", { placeholder: "203.0.113.0/24, 2001:db8::/32", autocomplete: "off", spellcheck: "false" });
    const note = el("input", { placeholder: "whose it is", autocomplete: "off" });
    made(await ask({
      title: "A new key",
      contents: [el("fieldset", el("legend", "Services (none means all)"), chosen.map((c) => el("label.check", c, c.value))), field("Requests a minute, over all PoPs", quota), field("Valid until", expires, "Without a day it has no end."),
        field("Only from these prefixes", from, "None means from anywhere."), field("Note", note)],
      act: "Make the key",
      go: () => request("POST", "keys", { body: {
        services: chosen.filter((c) => c.checked).map((c) => c.value), quota_per_minute: Number(quota.value), note: note.value, from: from.value.split(/[\s,]+/).filter(Boolean),
        ...(expires.value && { expires: new Date(expires.value + "T23:59:59").toISOString() }),
      } }),
    }));
  }

  async function rotate(key) {
    const overlap = select({}, [["1h", "1 hour"], ["24h", "1 day"], ["168h", "7 days"], ["720h", "30 days"]], "24h");
    made(await ask({ title: `Rotate ${key.id}?`, contents: [el("p", "A new key is made that may do the same. The old one stays valid for a while, so that clients can change over."), field("The old one is valid for", overlap)],
      act: "Make the new key", go: () => request("POST", `keys/${name(key.id)}/rotate`, { body: { overlap: overlap.value } }) }));
  }

  async function revoke(key) {
    const done = await ask({ title: `Revoke ${key.id}?`, contents: el("p", `Clients that use it${key.note ? ` (${key.note})` : ""} are refused within a second. It cannot be taken back.`), act: "Revoke it", danger: true, go: () => request("DELETE", `keys/${name(key.id)}`) });
    if (done) read();
  }

  async function made(key) {
    if (!key?.key) return;
    const copied = el("span", { role: "status" }), secret = el("input.secret", { value: key.key, readonly: true, "aria-label": "The key", onfocus: (e) => e.target.select() });
    await tell({ title: "The key, shown this once", act: "I have kept it", contents: [el("p", "It is stored nowhere: only its hash is. Whoever has it can post in its name."), el("div.row", secret,
      el("button.quiet", { type: "button", onclick: async () => { try { await navigator.clipboard.writeText(key.key); fill(copied, "copied"); } catch { secret.select(); fill(copied, "selected: copy it by hand"); } } }, "Copy"), copied)] });
    read();
  }

  root.append(el("h1", "Keys"), el("div.row.spread", field("Find", find), mayWrite() && el("button", { type: "button", onclick: create }, "New key…")), wrong, list);
  read();
}
