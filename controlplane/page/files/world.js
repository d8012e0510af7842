// What is known of the world now, for all views: read once, then kept up to date by events.
import { get, now } from "./api.js";
import { follow } from "./live.js";
import { Rates } from "./rates.js";

export const world = {
  me: null, status: null, topology: null, faults: [], warnings: [], nodes: null,
  live: { live: false, starting: true }, rates: new Rates(),
};

const bus = new EventTarget();

// onChange calls f(kind) when something has changed, until signal ends it. Kinds are those of events, and "live" and "tick".
export function onChange(f, signal) {
  bus.addEventListener("change", (event) => f(event.detail), { signal });
}

const changed = (kind) => bus.dispatchEvent(new CustomEvent("change", { detail: kind }));

// mayWrite reports whether who is logged in may edit; the server checks it again.
export const mayWrite = () => ["operator", "admin"].includes(world.me?.role);

export const services = () => Object.keys(world.topology?.services ?? {}).sort();

// drainOf is the override of a kind that is in effect on a target.
export function overrideOn(target, isCluster, kind) {
  return (world.status?.overrides ?? []).find((o) => !o.expired && (!kind || o.kind === kind) && (isCluster ? o.cluster : o.pop) === target);
}

// stateOf says in one word how a PoP or a cluster is: well, down, drained or unknown.
export function stateOf(target, isCluster) {
  if (target.health.status === "down") return "down";
  if (target.health.status === "degraded") return "drained"; // clients go elsewhere, as far as there is a better one
  if (target.state !== "active" || !target.answered || overrideOn(target.name, isCluster, "drain")) return "drained";
  return target.health.status === "up" ? "well" : "unknown";
}

function take(kind, data) {
  if (kind === "status") {
    world.status = { ...data, pops: data.pops ?? [], clusters: data.clusters ?? [], dns: data.dns ?? [], vantages: data.vantages ?? [] };
    world.rates.add(data.activity, now());
    lastStatus = Date.now();
    return soon();
  }
  changed(kind);
  if (kind === "topology") readTopology().catch(failed);
  if (kind === "nodes") readNodes().catch(failed);
  if (kind === "overrides") readStatus().catch(failed);
}

const tooLong = 10_000; // for a node to take up a new topology

export const isBehind = (node) => node.behind && Date.now() - node.behindSince > tooLong;

const calm = 500; // ms between two drawings of the status, which may come several times a second
let drawn = 0, waiting = 0;

// soon tells of a new status: the first at once, and of those that follow the newest.
function soon() {
  if (waiting) return;
  waiting = setTimeout(() => {
    waiting = 0;
    drawn = Date.now();
    if (world.status) changed("status");
  }, Math.max(0, calm - (Date.now() - drawn)));
}

async function readStatus() { take("status", await get("status")); }

async function readTopology() {
  const stored = await get("topology");
  Object.assign(world, { topology: stored.topology ?? {}, faults: stored.faults ?? [], warnings: stored.warnings ?? [] });
  changed("read");
}

// readNodes reads the nodes, and keeps since when each is behind: one that takes up a new topology just now is no news.
async function readNodes() {
  const before = new Map((world.nodes ?? []).map((n) => [n.name, n.behindSince]));
  world.nodes = ((await get("nodes")) ?? []).map((n) => ({ ...n, behindSince: n.behind ? before.get(n.name) ?? Date.now() : undefined }));
  changed("read");
}

let lastStatus = 0;
const failed = (error) => {
  if (error.status !== 401) tell({ live: false, why: error.message });
};

const readAll = () => Promise.all([readTopology(), readStatus(), readNodes().catch(() => { world.nodes = null; })]);

function tell(state) {
  const before = world.live;
  world.live = { since: before.live === state.live ? before.since : Date.now(), ...state };
  changed("live");
  if (state.live && !before.live && !before.starting) readAll().catch(failed); // what was missed
}

const pollEvery = 10_000;

// begin reads the world and follows it until signal ends. It returns when the first reading is done; its error is that of the reading.
export async function begin(signal) {
  world.me = await get("whoami");
  await readAll();
  world.live = { live: false, starting: true };
  follow({ take, tell, signal });
  const poll = (age) => { if (!document.hidden && Date.now() - lastStatus > age) readStatus().catch(failed); };
  const first = setTimeout(poll, 2000, 1500); // for rates, which need two readings
  const timer = setInterval(() => {
    changed("tick"); // durations go on
    if (world.nodes?.some((n) => n.behind)) readNodes().catch(failed);
    poll(pollEvery - 500);
  }, pollEvery);
  signal.addEventListener("abort", () => { clearInterval(timer); clearTimeout(first); clearTimeout(waiting); });
}
