// The world in cells, as /v1/map tells it: paths of equal colour, and the lines between them.
import { project } from "./projection.js";

// bands are the isochrones in ms; what is beyond the last one has its own colour.
export const bands = [10, 20, 50, 100, 200];
export const bandOf = (ms) => {
  const i = bands.findIndex((b) => ms < b);
  return i < 0 ? bands.length : i;
};

const none = -2; // no land
const finest = 0.5; // degrees of a piece that is drawn

// Cells is a map that can be asked for a place and be drawn.
export class Cells {
  constructor(map) {
    this.step = map.step_deg;
    this.pops = map.pops ?? [];
    this.columns = Math.round(360 / this.step);
    this.north = Math.max(...map.rows.map((r) => r.lat)) + this.step / 2;
    this.rows = 1 + Math.max(...map.rows.map((r) => this.#row(r.lat)));
    this.pop = new Int16Array(this.rows * this.columns).fill(none);
    this.rtt = new Float32Array(this.rows * this.columns);
    for (const { lat, runs } of map.rows) {
      for (const [lon, n, pop, ms] of runs) {
        for (let i = 0; i < n; i++) {
          const at = this.#row(lat) * this.columns + this.#column(lon + i * this.step);
          this.pop[at] = pop;
          this.rtt[at] = ms;
        }
      }
    }
  }

  #row(lat) { return Math.floor((this.north - lat) / this.step); }
  #column(lon) { return (Math.floor((lon + 180) / this.step) + this.columns) % this.columns; }

  // at tells who answers at a place and how far it is; null at sea.
  at(lat, lon) {
    const row = this.#row(lat), at = row * this.columns + this.#column(lon);
    if (row < 0 || row >= this.rows || this.pop[at] === none) return null;
    return { pop: this.pop[at] < 0 ? null : this.pops[this.pop[at]], ms: this.rtt[at] };
  }

  // neighbours are, for each PoP, the others whose land meets its own.
  neighbours() {
    const meets = this.pops.map(() => new Set());
    const meet = (a, b) => { if (a >= 0 && b >= 0 && a !== b) { meets[a].add(b); meets[b].add(a); } };
    const { pop } = this.#spread();
    for (let at = 0; at < pop.length; at++) {
      meet(pop[at], pop[at + 1 - (at % this.columns === this.columns - 1 ? this.columns : 0)]);
      meet(pop[at], pop[at + this.columns]);
    }
    return meets;
  }

  // draw returns the paths by colour, and the lines between colours. Colours are of PoPs by their index, or of bands; -1 is of no answer.
  draw(by) {
    const fine = Math.max(1, Math.round(this.step / finest)), columns = this.columns * fine, rows = this.rows * fine;
    const colours = this.#refine(by, fine, columns, rows), step = this.step / fine;
    const corner = (r, i) => project(-180 + i * step, this.north - r * step).join(" ");
    const fills = new Map();
    let lines = "";
    for (let r = 0; r < rows; r++) {
      const row = colours.subarray(r * columns, (r + 1) * columns), below = r + 1 < rows ? colours.subarray((r + 1) * columns, (r + 2) * columns) : null;
      for (let i = 0; i < columns;) {
        let n = 1;
        while (i + n < columns && row[i + n] === row[i]) n++;
        if (row[i] !== none) {
          fills.set(row[i], `${fills.get(row[i]) ?? ""}M${corner(r, i)}L${corner(r, i + n)}L${corner(r + 1, i + n)}L${corner(r + 1, i)}Z`);
          if (i + n < columns && row[i + n] !== none) lines += `M${corner(r, i + n)}L${corner(r + 1, i + n)}`;
        }
        i += n;
      }
      for (let i = 0; below && i < columns; i++) {
        if (row[i] !== below[i] && row[i] !== none && below[i] !== none) lines += `M${corner(r + 1, i)}L${corner(r + 1, i + 1)}`;
      }
    }
    return { fills, lines };
  }

  // #refine colours finer pieces than cells are: times are interpolated, PoPs voted for by the four cells around, so that lines are smooth.
  #refine(by, fine, columns, rows) {
    const { pop, rtt } = this.#spread();
    const colours = new Int16Array(columns * rows);
    for (let r = 0; r < rows; r++) {
      const v = (r + 0.5) / fine - 0.5, r0 = Math.floor(v);
      for (let i = 0; i < columns; i++) {
        const u = (i + 0.5) / fine - 0.5, i0 = Math.floor(u);
        const votes = new Map();
        let ms = 0, weight = 0;
        for (const [dr, di] of around) {
          if (r0 + dr < 0 || r0 + dr >= this.rows) continue;
          const at = (r0 + dr) * this.columns + ((i0 + di + this.columns) % this.columns);
          if (pop[at] === none) continue;
          const w = (dr ? v - r0 : 1 - v + r0) * (di ? u - i0 : 1 - u + i0);
          votes.set(pop[at], (votes.get(pop[at]) ?? 0) + w);
          if (pop[at] >= 0) { ms += w * rtt[at]; weight += w; }
        }
        let best = none;
        for (const [p, w] of votes) if (best === none || w > votes.get(best)) best = p;
        colours[r * columns + i] = best < 0 || by !== "rtt" ? best : bandOf(ms / weight);
      }
    }
    return colours;
  }

  // #spread lets land go on over the sea by one cell, so that the picture can be cut at the coast, which is finer than cells are.
  #spread() {
    const pop = this.pop.slice(), rtt = this.rtt.slice();
    for (let at = 0; at < pop.length; at++) {
      if (this.pop[at] !== none) continue;
      const r = Math.floor(at / this.columns), i = at % this.columns;
      for (const [dr, di] of beside) {
        const from = (r + dr) * this.columns + ((i + di + this.columns) % this.columns);
        if (r + dr < 0 || r + dr >= this.rows || this.pop[from] === none) continue;
        pop[at] = this.pop[from];
        rtt[at] = this.rtt[from];
        break;
      }
    }
    return { pop, rtt };
  }
}

const around = [[0, 0], [0, 1], [1, 0], [1, 1]];
const beside = [[0, 1], [0, -1], [1, 0], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]];

// tints gives each PoP of a map one of n colours: no two that meet have the same, if it can be, and those that have are far from each other.
export function tints(cells, places, n) {
  const meets = cells.neighbours(), given = [];
  for (const [i, place] of places.entries()) {
    const worth = (c) => {
      const same = given.filter((g) => g.tint === c);
      return Math.min(1e6 - c, ...same.map((g) => Math.hypot(g.lat - place.lat, wrap(g.lon - place.lon)) - (meets[i].has(g.i) ? 1000 : 0)));
    };
    const tint = [...Array(n).keys()].reduce((a, b) => (worth(b) > worth(a) ? b : a));
    given.push({ ...place, i, tint });
  }
  return given.map((g) => g.tint);
}

const wrap = (d) => d - 360 * Math.round(d / 360);
