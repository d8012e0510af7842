// Makes centroids.csv: the middle of each country's largest polygon, and its continent.
// It is run by hand, only to renew the checked-in file, in an empty folder:
//   npm install world-atlas@2.0.2 topojson-client@3 d3-geo@3 i18n-iso-countries@7 countries-list@3
//   cp PATH/centroids.mjs . && node centroids.mjs > PATH/centroids.csv
// Sources: Natural Earth 1:50m (public domain) for the shapes; the first line of a country in
// tzdata's zone.tab (public domain) for the few territories that have no shape of their own.
// Russia counts as European, as in GeoNames and GeoLite2.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { geoArea, geoCentroid } from "d3-geo";
import { feature } from "topojson-client";
import { countries } from "countries-list";

const require = createRequire(import.meta.url);
const iso = require("i18n-iso-countries");
const world = require("world-atlas/countries-50m.json");

const places = new Map();

// zone.tab has ±DDMM±DDDMM or ±DDMMSS±DDDMMSS.
const degrees = (s) => {
  const digits = s.slice(1), whole = digits.length % 2 ? 3 : 2;
  const minutes = digits.slice(whole, whole + 2) / 60, seconds = (digits.slice(whole + 2) || 0) / 3600;
  return (s[0] === "-" ? -1 : 1) * (Number(digits.slice(0, whole)) + minutes + seconds);
};
for (const line of readFileSync("/usr/share/zoneinfo/zone.tab", "utf8").split("\n")) {
  const [code, where] = line.split("\t");
  if (!where || line.startsWith("#") || places.has(code)) continue;
  const [, lat, lon] = where.match(/^([+-]\d+)([+-]\d+)$/);
  places.set(code, [degrees(lon), degrees(lat)]);
}

const largest = new Map();
for (const { id, geometry } of feature(world, world.objects.countries).features) {
  const code = iso.numericToAlpha2(id);
  const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  for (const coordinates of code ? polygons : []) {
    const polygon = { type: "Polygon", coordinates }, area = geoArea(polygon);
    if (area <= (largest.get(code) ?? 0)) continue;
    largest.set(code, area);
    places.set(code, geoCentroid(polygon));
  }
}

console.log("# country,continent,latitude,longitude (degrees WGS 84). Made by gen/centroids.mjs, which names the sources.");
for (const code of [...places.keys()].sort()) {
  const [lon, lat] = places.get(code);
  if (countries[code]) console.log(`${code},${code === "RU" ? "EU" : countries[code].continent},${lat.toFixed(2)},${lon.toFixed(2)}`);
}
