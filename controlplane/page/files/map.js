// The world map: land, colours, PoPs and clusters, and a mark that is moved by mouse, finger or arrow keys.
import { bands } from "./cells.js";
import { el, svg } from "./dom.js";
import { place } from "./format.js";
import { glyph } from "./glyph.js";
import { labels } from "./labels.js";
import { arc, borders, globe, graticule, locate, project, tall, width } from "./projection.js";

let coast; // the path of all countries, read once
const outlines = async () => {
  const response = await fetch(new URL("page/borders.json", document.baseURI.replace(/#.*$/, "")));
  return borders(await response.json());
};

let maps = 0;

// WorldMap draws into its element. pick(place) is called when a person points at a place, pickMark(mark) when at a PoP or cluster.
export class WorldMap {
  #root; #land; #cells; #lines; #ways; #marks; #cross; #shown = []; #at = null;

  constructor({ label, pick, pickMark, signal }) {
    const id = `map${++maps}`;
    this.pick = pick;
    this.pickMark = pickMark;
    this.#land = svg("path.land");
    this.#cells = svg("g.cells");
    this.#lines = svg("path.lines");
    this.#ways = svg("g.ways");
    this.#marks = svg("g.marks");
    this.#cross = svg("g.cross", { visibility: "hidden" }, svg("circle", { r: 9 }), svg("path", { d: "M-15 0h10M5 0h10M0 -15v10M0 5v10" }));
    const clip = svg("path");
    this.edges = svg("path.borders");
    this.#root = svg("svg.world", { viewBox: `0 0 ${width} ${Math.ceil(tall)}`, tabindex: 0, role: "application", "aria-roledescription": "map",
      "aria-label": `${label} Arrow keys move a mark, Enter asks about it; the tables below tell the same.` },
    svg("defs", svg("clipPath", { id: id + "g" }, svg("path", { d: globe() })), svg("clipPath", { id: id + "l" }, clip)),
    svg("path.sea", { d: globe() }), svg("path.graticule", { d: graticule(30) }),
    svg("g", { "clip-path": `url(#${id}g)` }, this.#land,
      svg("g", { "clip-path": `url(#${id}l)` }, this.#cells, this.#lines), this.edges, this.#ways),
    this.#marks, this.#cross);
    this.element = el("div.map", this.#root);
    this.#root.addEventListener("click", (event) => this.#click(event));
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    const observer = new ResizeObserver(() => this.marks(this.#shown));
    observer.observe(this.element);
    signal.addEventListener("abort", () => observer.disconnect());
    (coast ??= outlines()).then((path) => {
      for (const p of [this.#land, clip, this.edges]) p.setAttribute("d", path);
    }, () => { coast = undefined; });
  }

  // colour draws cells by "pop" or "rtt"; tints are the colours of PoPs. Without cells only the land is drawn.
  colour(cells, by, tints) {
    const { fills, lines } = cells ? cells.draw(by) : { fills: new Map(), lines: "" };
    this.#cells.replaceChildren(...[...fills].map(([c, d]) => {
      const kind = c < 0 ? "nobody" : by === "rtt" ? `band${c}` : `tint${tints[c]}`;
      return svg(`path.${kind}`, { d });
    }));
    this.#lines.setAttribute("d", lines);
  }

  // marks draws PoPs and clusters: {name, lat, lon, isCluster, state, title}. The worst come last, and so on top.
  marks(marks) {
    this.#shown = marks;
    const size = this.#pixel();
    const placed = labels(marks.map((m) => ({ ...m, at: project(m.lon, m.lat).map((v) => v / size) })), [width / size, tall / size]);
    this.#marks.replaceChildren(...placed.map((m) => svg("g.mark", {
      transform: `translate(${m.at[0] * size} ${m.at[1] * size}) scale(${size})`, onclick: (event) => { event.stopPropagation(); this.pickMark?.(m); },
    }, svg("title", m.title), glyph(m.isCluster, m.state), m.label && svg("text", { x: m.label[0], y: m.label[1] }, m.name))));
    this.#cross.setAttribute("transform", `${this.#where()} scale(${size})`);
  }

  // ways draws lines from a place to others: {lat, lon, chosen}.
  ways(from, to) {
    this.#ways.replaceChildren(...to.map((t) => svg(t.chosen ? "path.way.chosen" : "path.way", { d: arc(from, t) })));
    if (from) this.point(from);
  }

  // point puts the mark at a place.
  point(at) {
    this.#at = at;
    this.#cross.setAttribute("visibility", "visible");
    this.#cross.setAttribute("transform", `${this.#where()} scale(${this.#pixel()})`);
  }

  // #pixel is the size of a pixel in the drawing; signs are somewhat smaller where the map is small.
  #pixel() {
    const wide = this.element.clientWidth || width;
    return (width / wide) * Math.max(0.7, Math.min(1, wide / 600));
  }

  #where() {
    const [x, y] = this.#at ? project(this.#at.lon, this.#at.lat) : [0, 0];
    return `translate(${x} ${y})`;
  }

  #click(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.#root.getScreenCTM().inverse());
    const at = locate(point.x, point.y);
    if (at && this.pick) {
      this.point(at);
      this.pick(at);
    }
  }

  #key(event) {
    const move = { ArrowUp: [2, 0], ArrowDown: [-2, 0], ArrowLeft: [0, -2], ArrowRight: [0, 2] }[event.key];
    if (move) {
      const from = this.#at ?? { lat: 20, lon: 0 }, far = event.shiftKey ? 5 : 1;
      this.point({
        lat: Math.max(-56, Math.min(83, from.lat + move[0] * far)),
        lon: ((from.lon + move[1] * far + 540) % 360) - 180,
      });
    } else if (event.key === "Enter" && this.#at) {
      this.pick?.(this.#at);
    } else return;
    event.preventDefault();
  }
}

// legend names the colours of a map.
export function legend(by, pops, tints) {
  const one = (kind, text) => el("li", el(`span.swatch.${kind}`), text);
  if (by === "rtt") {
    return el("ol.legend", { "aria-label": "Colours: round-trip time" },
      bands.map((b, i) => one(`band${i}`, i ? `${bands[i - 1]}–${b} ms` : `under ${b} ms`)), one(`band${bands.length}`, `${bands.at(-1)} ms and more`));
  }
  if (by === "pop") return el("ol.legend", { "aria-label": "Colours: PoPs" }, pops.map((p, i) => one(`tint${tints[i]}`, p)));
  return null;
}

// cellText says in words what a map's cell tells.
export function cellText(at, cell, known) {
  const where = place(at.lat, at.lon);
  if (!known) return `${where}.`;
  if (!cell) return `${where}: sea.`;
  return cell.pop ? `${where}: clients are answered ${cell.pop}, about ${Math.round(cell.ms)} ms away.` : `${where}: clients get no answer.`;
}

