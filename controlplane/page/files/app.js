// The frame: log-in, the views and their addresses (#/name?…), the sentence on top, and whether it is live.
import { forget, keep, takeFromAddress, token, whenRefused } from "./api.js";
import { el, field, fill, told } from "./dom.js";
import { span } from "./format.js";
import { sentence } from "./sentence.js";
import { sign } from "./glyph.js";
import { begin, onChange, world } from "./world.js";
import * as editor from "./editor.js";
import * as explain from "./explain.js";
import * as health from "./health.js";
import * as history from "./history.js";
import * as keys from "./keys.js";
import * as overrides from "./overrides.js";
import * as overview from "./overview.js";
import * as services from "./services.js";

const views = { "": overview, explain, services, keys, health, overrides, history, topology: editor };
const names = { "": "Overview", explain: "Explain", services: "Services", keys: "Keys", health: "Health", overrides: "Drain", history: "History", topology: "Topology" };

const $ = (id) => document.getElementById(id);
const main = $("main");
let session, shown;

// go opens a view: go("explain", {client: "192.0.2.1"}).
export const href = (view, params) => {
  const query = new URLSearchParams(Object.entries(params ?? {}).filter(([, v]) => v !== undefined && v !== ""));
  return `#/${view}${query.size ? "?" + query : ""}`;
};

function route() {
  if (!session || !world.status) return;
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  const view = views[name] ?? overview, key = views[name] ? name : "";
  shown?.abort();
  shown = new AbortController();
  session.signal.addEventListener("abort", () => shown.abort());
  document.title = key ? `${names[key]} · Isochrone` : "Isochrone";
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.dataset.view === key) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = key || "overview";
  main.replaceChildren();
  view.show({ root: main, params: new URLSearchParams(query), signal: shown.signal, href });
  if (moved) main.focus({ preventScroll: true });
  moved = true;
}
let moved = false; // the first view takes no focus

function top() {
  $("top").hidden = $("sentence").hidden = !session || !world.status;
  if (!session || !world.status) return;
  fill($("me"), `${world.me.name} (${world.me.role})`);
  live();
  const said = sentence(world.status, world.nodes);
  const parts = said.parts.map((p, i) => el("span.part", p.level && said.parts.length > 1 && el("span.level." + p.level, { "aria-hidden": "true" }),
    p.about ? el("a", { href: "#/", "data-key": "part" + p.text.split(/[:\d]/)[0], onclick: (e) => about(e, p.about) }, p.text) : p.text,
    i < said.parts.length - 1 ? ";" : said.more ? "" : p.level ? "." : ""));
  fill($("sentence"), el(`div.verdict.${said.level}`, sign(false, { well: "well", warn: "drained", bad: "down" }[said.level]),
    el("div", el("p.first", parts, said.more ? ` – and ${said.more} more.` : ""), said.also.length > 0 && el("p.also", join(said.also)))));
  if ($("spoken").textContent !== said.spoken) $("spoken").textContent = said.spoken; // times left out, so that it speaks only of news
}

const join = (sentences) => sentences.map((s) => s[0].toUpperCase() + s.slice(1).replace(/\.?$/, ".")).join(" ");

// about shows the part of the overview that a part of the sentence is about.
function about(event, selector) {
  event.preventDefault();
  const find = () => {
    const part = main.querySelector(selector);
    part?.scrollIntoView({ block: "start" });
    part?.focus({ preventScroll: true });
  };
  if (document.body.dataset.view === "overview") return find();
  addEventListener("hashchange", () => setTimeout(find), { once: true });
  location.hash = "#/";
}

function live() {
  const { live, starting, since, why } = world.live;
  const text = live ? "live" : starting ? "connecting" : `not live for ${span(Date.now() - (since ?? Date.now()))}`;
  fill($("live"), el(`span.live.${live ? "on" : starting ? "soon" : "off"}`, { title: live ? "Changes show at once" : why ?? "" }, text),
    !live && !starting && el("span.spoken", `: ${why}`));
  document.body.classList.toggle("stale", !live && !starting);
}

function logIn(problem) {
  session?.abort();
  session = undefined;
  Object.assign(world, { me: null, status: null });
  shown?.abort();
  top();
  document.body.dataset.view = "login";
  document.title = "Log in · Isochrone";
  $("spoken").textContent = "";
  const input = el("input", { type: "password", name: "token", autocomplete: "current-password", required: true, spellcheck: "false", autocapitalize: "off" });
  const wrong = el("div");
  if (problem) told(wrong, "bad", problem);
  const button = el("button", { type: "submit" }, "Log in");
  main.replaceChildren(el("form.login", { onsubmit: (e) => { e.preventDefault(); button.disabled = true; keep(input.value.trim()); start(); } },
    el("img", { src: "page/icon.svg", alt: "", width: 56, height: 56 }), el("h1", "Isochrone"),
    el("p", "Who goes where, and is all well? Log in with a token of the control API."),
    field("Token", input, "“isochrone token create” makes one. It is kept for this tab only, until you log out or close it."), wrong, button));
  input.focus();
}

async function start() {
  const mine = new AbortController();
  session = mine;
  try {
    await begin(mine.signal);
  } catch (error) {
    if (mine !== session) return; // refused, and said so already
    if (error.status === 401) return refused();
    logIn(error.status === 403 ? "This token may not look at the page." : `Not logged in: ${error.message}.`);
    return;
  }
  if (mine !== session) return;
  onChange(() => top(), mine.signal);
  top();
  route();
}

function refused() {
  forget();
  logIn("The control plane does not know this token: it may be mistyped, expired or revoked.");
}

whenRefused(() => session && refused());
$("logout").addEventListener("click", () => { forget(); logIn(); });
$("nav").append(...Object.entries(names).map(([view, name]) => el("li", el("a", { href: href(view), "data-view": view }, name))));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) {
    takeFromAddress();
    session?.abort();
    start();
  } else route();
});
takeFromAddress();
if (token()) start();
else logIn();

