// Makes extents.csv: boxes that hold the land of each country.
// It is run by hand, only to renew the checked-in file, in an empty folder:
//   npm install world-atlas@2.0.2 topojson-client@3 i18n-iso-countries@7
//   cp PATH/extents.mjs . && node extents.mjs > PATH/../extents.csv
// Sources: Natural Earth 1:50m (public domain) for the shapes; zone.tab of the time zone database (public domain) for territories that
// have no shape of their own, and for islands that the shapes leave out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { feature } from "topojson-client";

const require = createRequire(import.meta.url);
const iso = require("i18n-iso-countries");
const world = require("world-atlas/countries-50m.json");

const near = 1; // degrees
const boxes = new Map(); // [west, south, east, north] by country

const area = ([w, s, e, n]) => (e - w + near) * (n - s + near);
const union = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
const holds = (a, b) => a[0] - near <= b[0] && a[1] - near <= b[1] && a[2] + near >= b[2] && a[3] + near >= b[3];

for (const { id, properties, geometry } of feature(world, world.objects.countries).features) {
  // Areas without a code of their own belong to the neighbour whose networks serve them.
  const code = iso.numericToAlpha2(id) ?? { Kosovo: "XK", "N. Cyprus": "CY", Somaliland: "SO" }[properties.name];
  if (!code) continue;
  const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  for (const [outline] of polygons) {
    const lons = [], lats = outline.map(([, lat]) => lat);
    for (const [lon] of outline) lons.push(lons.length ? lon - 360 * Math.round((lon - lons.at(-1)) / 360) : lon); // on over the date line
    boxes.set(code, [...(boxes.get(code) ?? []), [Math.min(...lons), Math.min(...lats), Math.max(...lons), Math.max(...lats)]]);
  }
}

// zone.tab has ±DDMM±DDDMM or ±DDMMSS±DDDMMSS.
const degrees = (s) => {
  const digits = s.slice(1), whole = digits.length % 2 ? 3 : 2;
  const minutes = digits.slice(whole, whole + 2) / 60, seconds = (digits.slice(whole + 2) || 0) / 3600;
  return (s[0] === "-" ? -1 : 1) * (Number(digits.slice(0, whole)) + minutes + seconds);
};
for (const line of readFileSync("/usr/share/zoneinfo/zone.tab", "utf8").split("\n")) {
  const [code, where] = line.split("\t");
  if (!where || line.startsWith("#")) continue;
  const [, lat, lon] = where.match(/^([+-]\d+)([+-]\d+)$/);
  const point = [degrees(lon), degrees(lat), degrees(lon), degrees(lat)];
  if (!(boxes.get(code) ?? []).some((box) => holds(box, point))) boxes.set(code, [...(boxes.get(code) ?? []), point]);
}

boxes.set("AQ", [[-180, -90, 180, -60]]); // as the Antarctic Treaty has it; shapes around the pole make no boxes

console.log("# country, then west, south, east and north of each box (degrees WGS 84). Made by gen/extents.mjs, which names the sources.");
for (const code of [...boxes.keys()].sort()) {
  let all = boxes.get(code).sort((a, b) => area(b) - area(a));
  for (let merged = true; merged; ) { // as long as the box of two is hardly larger than the two
    merged = false;
    for (let i = 0; i < all.length && !merged; i++)
      for (let j = i + 1; j < all.length && !merged; j++) {
        const both = union(all[i], all[j]);
        if (holds(all[i], all[j]) || area(both) < 1.3 * (area(all[i]) + area(all[j]))) {
          all = [both, ...all.filter((_, k) => k !== i && k !== j)];
          merged = true;
        }
      }
  }
  console.log([code, ...all.flat().map((x) => x.toFixed(1))].join(","));
}
