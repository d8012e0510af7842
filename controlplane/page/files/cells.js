// The world in cells, as /v1/map tells it: paths of equal colour, and the lines between them.
import { project } from "./projection.js";

// bands are the isochrones in ms; what is beyond the last one has its own colour.
export const bands = [10, 20, 50, 100, 200];
export const bandOf = (ms) => {
  const i = bands.findIndex((b) => ms < b);
  return i < 0 ? bands.length : i;
};

const none = -2; // no land

// Cells is a map that can be asked for a place and be drawn.
export class Cells {
  constructor(map) {
    this.step = map.step_deg;
    this.pops = map.pops ?? [];
    this.columns = Math.round(360 / this.step);
    this.rows = (map.rows ?? []).map(({ lat, runs }) => {
      const pop = new Int16Array(this.columns).fill(none), rtt = new Float32Array(this.columns);
      for (const [lon, n, index, ms] of runs ?? []) {
        const first = Math.round((lon + 180) / this.step - 0.5);
        for (let i = first; i < first + n; i++) {
          pop[((i % this.columns) + this.columns) % this.columns] = index;
          rtt[((i % this.columns) + this.columns) % this.columns] = ms;
        }
      }
      return { lat, pop, rtt };
    });
  }

  // at tells who answers at a place and how far it is; null at sea.
  at(lat, lon) {
    const row = this.rows.find((r) => Math.abs(r.lat - lat) <= this.step / 2);
    const i = Math.min(this.columns - 1, Math.floor((lon + 180) / this.step));
    if (!row || row.pop[i] === none) return null;
    return { pop: row.pop[i] < 0 ? null : this.pops[row.pop[i]], ms: row.rtt[i] };
  }

  // draw returns the paths by colour, and the lines between colours. Colours are of PoPs by their index, or of bands; -1 is of no answer.
  // Land spreads by one cell over the sea, so that the picture can be cut at the coast, which is finer than cells are.
  draw(by) {
    const colour = (row, i) => (row.pop[i] < 0 ? row.pop[i] : by === "rtt" ? bandOf(row.rtt[i]) : row.pop[i]);
    const land = this.rows.map((row) => Int16Array.from(row.pop, (_, i) => colour(row, i)));
    const wide = land.map((row, r) => row.map((c, i) => (c !== none ? c : this.#beside(land, r, i))));
    const fills = new Map();
    let lines = "";
    wide.forEach((row, r) => {
      for (let i = 0; i < this.columns;) {
        let n = 1;
        while (i + n < this.columns && row[i + n] === row[i]) n++;
        if (row[i] !== none) fills.set(row[i], (fills.get(row[i]) ?? "") + this.#run(r, i, n));
        if (i + n < this.columns && row[i] !== none && row[i + n] !== none) lines += this.#line(r, i + n, -0.5, i + n, 0.5);
        i += n;
      }
      const below = this.#adjacent(r) ? wide[r + 1] : null;
      for (let i = 0; below && i < this.columns; i++) {
        if (row[i] !== below[i] && row[i] !== none && below[i] !== none) lines += this.#line(r, i, -0.5, i + 1, -0.5);
      }
    });
    return { fills, lines };
  }

  #adjacent(r) {
    return r + 1 < this.rows.length && this.rows[r].lat - this.rows[r + 1].lat < this.step * 1.5;
  }

  #beside(land, r, i) {
    const { columns } = this;
    for (const row of [land[r], this.#adjacent(r) ? land[r + 1] : null, r && this.#adjacent(r - 1) ? land[r - 1] : null]) {
      for (const d of row ? [0, 1, -1] : []) {
        const c = row[(i + d + columns) % columns];
        if (c !== none) return c;
      }
    }
    return none;
  }

  #corner(r, i, up) {
    return project(-180 + i * this.step, this.rows[r].lat + up * this.step).join(" ");
  }

  #run(r, i, n) {
    return `M${this.#corner(r, i, 0.5)}L${this.#corner(r, i + n, 0.5)}L${this.#corner(r, i + n, -0.5)}L${this.#corner(r, i, -0.5)}Z`;
  }

  #line(r, i, up, j, upTo) {
    return `M${this.#corner(r, i, up)}L${this.#corner(r, j, upTo)}`;
  }
}

// tints gives each PoP one of n colours, so that those of one colour are far from each other.
export function tints(places, n) {
  const given = [];
  for (const place of places) {
    const nearest = (c) => Math.min(...given.filter((g) => g.tint === c).map((g) => Math.hypot(g.lat - place.lat, wrap(g.lon - place.lon))), 1e6 - c);
    const best = [...Array(n).keys()].reduce((a, b) => (nearest(b) > nearest(a) ? b : a));
    given.push({ ...place, tint: best });
  }
  return given.map((g) => g.tint);
}

const wrap = (d) => d - 360 * Math.round(d / 360);
