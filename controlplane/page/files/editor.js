// The topology editor: an object's text, what is wrong with it and at which line, what it would do, and conflicts without losing it.
import { Problem, ask as request, get, name } from "./api.js";
import { changes, effect, warnings } from "./changes.js";
import { ask } from "./dialog.js";
import { el, field, fill, select, told } from "./dom.js";
import { numbered } from "./textarea.js";
import { mayWrite, onChange, world } from "./world.js";

const kinds = ["pops", "clusters", "services", "zones"];
const fresh = {
  pops: "schema: 1\nlocation:\n  lat: 0.0\n  lon: 0.0\n  country: XX\n  city: \naddresses: []\nport: 443\ncapacity_rps: 2000\nstate: active\n",
  clusters: "schema: 1\nlocation:\n  lat: 0.0\n  lon: 0.0\n  country: XX\n  city: \nendpoints:\n  - https://\nstate: active\n",
  services: "schema: 1\n", zones: "schema: 1\nnameservers:\n  ns1.example.net: []\nhostmaster: hostmaster.example.net\n",
};

const attempts = 5; // to apply while others edit

const drafts = new Map(); // what is typed and not applied, by object, so that looking elsewhere loses nothing

const wrapped = 3; // lines of the document before the object's own

// asDocument puts an object's text into a whole document, each line moved by `wrapped` lines.
const asDocument = (kind, id, text) => `schema: 1\n${kind}:\n  ${JSON.stringify(id)}:\n${text.split("\n").map((l) => (l.trim() ? "    " + l : "")).join("\n")}\n`;

export function show({ root, params, signal, href }) {
  const editor = new Editor(signal, href);
  root.append(el("h1", "Topology"), editor.element);
  editor.open(params.get("object") ?? "");
}

class Editor {
  constructor(signal, href) {
    this.signal = signal;
    this.object = "";
    this.stored = null; // {revision, text}; null for a new object
    this.text = numbered({ "aria-label": "Text of the object, YAML", readonly: !mayWrite() });
    this.text.area.addEventListener("input", () => { drafts.set(this.object, { text: this.text.area.value, stored: this.stored }); this.#stand(); });
    this.choice = el("span");
    this.id = el("input", { placeholder: "name, such as ams1", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
    this.idField = field("Name", this.id);
    this.standing = el("p.hint");
    this.outcome = el("div", { "aria-live": "polite" });
    this.message = el("input", { placeholder: "why, for the history", maxlength: 500, autocomplete: "off" });
    this.buttons = mayWrite() ? el("div.buttons", el("button.quiet", { type: "button", onclick: () => this.check() }, "Validate"), el("button", { type: "button", onclick: () => this.apply() }, "Apply…"),
      this.undo = el("button.quiet", { type: "button", onclick: () => this.revert() }, "Drop my changes"), this.gone = el("button.quiet.danger", { type: "button", onclick: () => this.remove() }, "Delete…")) : null;
    this.element = el("section.card.editor", el("div.row", field("Object", this.choice), this.idField), this.standing, this.text.element, mayWrite() && field("Message", this.message), this.buttons, this.outcome);
    this.href = href;
    onChange((kind) => kind === "read" && this.#choices(), signal);
  }

  #choices() {
    const options = kinds.flatMap((kind) => [...Object.keys(world.topology?.[kind] ?? {}).sort().map((n) => `${kind}/${n}`)]);
    const added = mayWrite() ? kinds.map((k) => [`new/${k}`, `new, in ${k}`]) : [];
    fill(this.choice, select({ "data-key": "object", onchange: (e) => this.open(e.target.value) }, [...options, ...added], this.object));
  }

  get kind() { return this.object.startsWith("new/") ? this.object.slice(4) : this.object.split("/")[0]; }
  get name() { return this.object.startsWith("new/") ? this.id.value.trim() : this.object.slice(this.kind.length + 1); }
  get path() { return `topology/${this.kind}/${name(this.name)}`; }

  async open(object) {
    const all = kinds.flatMap((k) => Object.keys(world.topology?.[k] ?? {}).sort().map((n) => `${k}/${n}`));
    this.object = object || all[0] || "new/pops";
    history.replaceState(null, "", this.href("topology", { object: this.object }));
    this.#choices();
    fill(this.outcome);
    const isNew = this.object.startsWith("new/"), draft = drafts.get(this.object);
    this.idField.hidden = !isNew;
    if (this.gone) this.gone.hidden = isNew;
    try {
      const opened = this.object;
      const stored = isNew ? null : await get(this.path, {}, this.signal);
      if (opened !== this.object) return;
      this.stored = draft ? draft.stored : stored;
      this.text.show(draft?.text ?? stored?.text ?? fresh[this.kind]);
      this.#stand();
      if (draft && stored && stored.revision !== draft.stored?.revision) this.conflict();
    } catch (error) {
      if (!this.signal.aborted) told(this.outcome, "bad", error.message);
    }
  }

  #stand() {
    const changed = this.text.area.value !== (this.stored?.text ?? fresh[this.kind]);
    fill(this.standing, this.stored ? `Last changed at revision ${this.stored.revision}. ` : "Not stored yet. ", changed && el("strong", "You have changes that are not applied."));
    if (this.undo) this.undo.disabled = !changed;
  }

  revert() {
    drafts.delete(this.object);
    this.open(this.object);
  }

  // check asks what the edit would do. It returns nothing when that is refused, and says why.
  async check() {
    fill(this.outcome, el("p.hint", "Validating…"));
    this.text.mark(new Map());
    if (!this.name) {
      told(this.outcome, "bad", "The new object needs a name.");
      this.id.focus();
      return undefined;
    }
    try {
      const plan = await request("POST", "changes", { body: { document: asDocument(this.kind, this.name, this.text.area.value), dry_run: true }, signal: this.signal });
      fill(this.outcome, el("p.told.good", "It is valid."), changes(plan.changes), warnings(plan.warnings), plan.changes?.length > 0 && [el("h3", "What it would do to clients"), effect(plan.effect)]);
      return plan;
    } catch (error) {
      if (!this.signal.aborted) this.#refused(error, wrapped);
      return undefined;
    }
  }

  // #refused shows faults at their lines; offset is how many lines stand before the text in what was sent.
  #refused(error, offset) {
    if (!error.faults?.length) return told(this.outcome, "bad", error.message);
    const at = (f) => {
      const line = (f.line || 0) - offset;
      return line > 0 ? Math.min(line, this.text.area.value.split("\n").length) : 0;
    };
    const lines = new Map();
    for (const f of error.faults) if (at(f)) lines.set(at(f), [lines.get(at(f)), f.message].filter(Boolean).join("\n"));
    this.text.mark(lines);
    fill(this.outcome, el("div.told.bad", { role: "alert" }, el("p", `Not valid: ${error.faults.length === 1 ? "one fault" : error.faults.length + " faults"}.`),
      el("ul", error.faults.map((f) => el("li", at(f) > 0 && [el("button.quiet", { type: "button", onclick: () => this.text.go(at(f)) }, `line ${at(f)}`), " "], el("code", f.path), ": ", f.message)))));
  }

  async apply() {
    const plan = await this.check();
    if (!plan) return;
    if (!plan.changes?.length) return told(this.outcome, "good", "Nothing to apply: it is stored like that.");
    const done = await ask({
      title: `Apply ${this.kind}/${this.name}?`, act: "Apply", contents: [changes(plan.changes), warnings(plan.warnings), el("h3", "What it does to clients"), effect(plan.effect)],
      go: () => this.#send({ document: asDocument(this.kind, this.name, this.text.area.value) }).catch((error) => ({ error })),
    });
    if (!done) return;
    if (done.error) return this.#failed(done.error);
    const object = `${this.kind}/${this.name}`;
    drafts.delete(this.object);
    drafts.delete(object);
    await this.open(object);
    told(this.outcome, "good", `Applied${done.revision ? ` as revision ${done.revision}` : ""}.`);
    this.message.value = "";
  }

  #failed(error) {
    return [409, 412].includes(error.status) ? this.conflict(error.message) : this.#refused(error, wrapped);
  }

  // #send sends an edit on what is stored now, unless this object is not what it was when it was opened; others may change meanwhile.
  async #send(edit) {
    for (let attempt = 1; ; attempt++) {
      const { revision: base } = await get("topology");
      const current = await get(this.path).catch((error) => { if (error.status !== 404) throw error; });
      if (current?.revision !== this.stored?.revision) throw new Problem(412, "");
      try {
        return await request("POST", "changes", { body: { ...edit, base, message: this.message.value } });
      } catch (error) {
        if (error.status !== 409 || attempt === attempts) throw error;
      }
    }
  }

  // conflict shows what is stored meanwhile beside what is typed, which stays.
  async conflict(why) {
    let theirs;
    try {
      theirs = await get(this.path, {}, this.signal);
    } catch (error) {
      if (error.status !== 404) return told(this.outcome, "bad", error.message);
    }
    const mine = this.text.area.value;
    const keep = () => {
      this.stored = theirs ?? null;
      drafts.set(this.object, { text: mine, stored: this.stored });
      this.#stand();
      this.check();
    };
    const take = () => { drafts.delete(this.object); this.open(this.object); };
    fill(this.outcome, el("div.told.warn", { role: "alert" }, el("p", el("strong", theirs ? "Somebody else has changed this object meanwhile." : "Somebody else has deleted this object meanwhile."), " Your text is kept above."), why && el("p.faint", why),
      theirs && el("details", { open: true }, el("summary", `What is stored now, revision ${theirs.revision}`), el("pre", { tabindex: 0 }, theirs.text)),
      el("div.buttons", el("button", { type: "button", onclick: keep }, "Keep mine, on top of it"), theirs && el("button.quiet", { type: "button", onclick: take }, "Take what is stored"))));
  }

  async remove() {
    const object = this.object;
    let plan;
    try {
      plan = await request("POST", "changes", { body: { document: "", delete: [object], dry_run: true } });
    } catch (error) {
      return this.#refused(error, 1e9); // its lines are not of this text
    }
    const done = await ask({
      title: `Delete ${object}?`, act: "Delete it", danger: true, contents: [el("h3", "What it does to clients"), effect(plan.effect), warnings(plan.warnings)],
      go: () => this.#send({ document: "", delete: [object] }).catch((error) => ({ error })),
    });
    if (!done) return;
    if (done.error) return this.#failed(done.error);
    drafts.delete(object);
    delete world.topology?.[this.kind]?.[this.name];
    await this.open("");
    told(this.outcome, "good", `${object} is deleted.`);
  }
}
