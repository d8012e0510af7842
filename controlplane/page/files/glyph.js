// Signs for states: PoPs are round, clusters square, and each state has its own sign inside, so that none is told by colour alone.
import { el, svg } from "./dom.js";

const signs = {
  well: "M6.300 10.300l2.600 2.600 5-5.400",
  down: "M7 7l6 6M13 7l-6 6",
  drained: "M8 6.800v6.400M12 6.800v6.400",
  unknown: "M8 8.200c0-2.600 4-2.600 4 0 0 1.600-2 1.600-2 3.200M10 13.700v.1",
};

// glyph is the sign alone, 20 wide around the point (0, 0).
export function glyph(isCluster, state) {
  return svg(`g.glyph.${state}`, svg("g", { transform: "translate(-10 -10)" },
    isCluster ? svg("rect", { x: 2.5, y: 2.5, width: 15, height: 15, rx: 2.5 }) : svg("circle", { cx: 10, cy: 10, r: 8 }),
    svg("path.sign", { d: signs[state] ?? signs.unknown })));
}

// sign is a small picture of it beside text.
export function sign(isCluster, state) {
  return svg("svg.sign", { viewBox: "-10 -10 20 20", width: 18, height: 18, "aria-hidden": "true" }, glyph(isCluster, state));
}

// stated is a name with its sign and, for those who do not see it, its state.
export function stated(name, isCluster, state) {
  return el("span.stated", sign(isCluster, state), el("span", name), el("span.spoken", `, ${state}`));
}
