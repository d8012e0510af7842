// Makes countries.txt: the outlines of the world's countries, in tenths of a degree.
// It is run by hand, only to renew the checked-in file, in an empty folder:
//   npm install world-atlas@2.0.2 topojson-client@3 i18n-iso-countries@7 countries-list@3
//   cp PATH/countries.mjs . && node countries.mjs > PATH/../countries.txt
// Source: Natural Earth 1:110m (public domain). Russia counts as European, as in GeoNames and GeoLite2.
import { createRequire } from "node:module";
import { feature } from "topojson-client";
import { countries } from "countries-list";

const require = createRequire(import.meta.url);
const iso = require("i18n-iso-countries");
const world = require("world-atlas/countries-110m.json");

console.log("# country, continent, then longitude and latitude of each corner in tenths of a degree; a line for each outline. Made by gen/countries.mjs.");
for (const { id, properties, geometry } of feature(world, world.objects.countries).features) {
  // Areas without a code of their own belong to the neighbour whose networks serve them.
  const code = iso.numericToAlpha2(id) ?? { Kosovo: "XK", "N. Cyprus": "CY", Somaliland: "SO" }[properties.name];
  if (!code) throw new Error(properties.name);
  const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  for (const [outline] of polygons) {
    const corners = outline.map(([lon, lat]) => `${Math.round(lon * 10)} ${Math.round(lat * 10)}`);
    const guiana = code === "FR" && outline[0][0] < -20;
    console.log([guiana ? "GF" : code, guiana ? "SA" : code === "RU" ? "EU" : countries[code]?.continent ?? "EU", ...corners.filter((c, i) => c !== corners[i - 1])].join(" "));
  }
}
