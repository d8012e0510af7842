// The Equal Earth projection (Šavrič, Patterson and Jenny, 2018), drawn 1000 wide, without the Antarctic. Parallels are straight lines, and
// so a run of cells is a trapezium.

const A1 = 1.340264, A2 = -0.081106, A3 = 0.000893, A4 = 0.003796, M = Math.sqrt(3) / 2;
const radian = Math.PI / 180;
const northEnd = 84, southEnd = -57;

const height = (t) => t * (A1 + A2 * t ** 2 + t ** 6 * (A3 + A4 * t ** 2));
const slope = (t) => A1 + 3 * A2 * t ** 2 + t ** 6 * (7 * A3 + 9 * A4 * t ** 2);
const parametric = (lat) => Math.asin(M * Math.sin(lat * radian));

const scale = (500 * M * slope(0)) / Math.PI; // half the equator is 500
const top = height(parametric(northEnd)) * scale;

export const width = 1000;
export const tall = top - height(parametric(southEnd)) * scale;

const cached = new Map();
function parallel(lat) {
  let p = cached.get(lat);
  if (!p) {
    const t = parametric(lat);
    p = { y: top - height(t) * scale, perDegree: (radian * Math.cos(t) * scale) / (M * slope(t)) };
    cached.set(lat, p);
  }
  return p;
}

const tidy = (v) => Math.round(v * 10) / 10;

// project returns where a place is drawn.
export function project(lon, lat) {
  const p = parallel(lat);
  return [tidy(width / 2 + lon * p.perDegree), tidy(p.y)];
}

// locate returns the place that is drawn at x, y, or null beyond the edge of the world.
export function locate(x, y) {
  let t = 0;
  for (let i = 0; i < 12; i++) t -= (height(t) - (top - y) / scale) / slope(t);
  const lat = Math.asin(Math.sin(t) / M) / radian;
  const lon = (x - width / 2) / ((radian * Math.cos(t) * scale) / (M * slope(t)));
  return Math.abs(lon) <= 180 && lat <= northEnd && lat >= southEnd ? { lat, lon } : null;
}

const at = (lon, lat) => project(lon, lat).join(" ");

// globe is the edge of what is drawn, as a path.
export function globe() {
  const points = [];
  for (let lat = southEnd; lat <= northEnd; lat += 3) points.push(at(180, lat));
  for (let lat = northEnd; lat >= southEnd; lat -= 3) points.push(at(-180, lat));
  return "M" + points.join("L") + "Z";
}

// graticule are lines of latitude and longitude.
export function graticule(step) {
  let path = "";
  for (let lat = -30; lat <= 60; lat += step) path += `M${at(-180, lat)}L${at(180, lat)}`;
  for (let lon = -180 + step; lon < 180; lon += step) {
    const points = [];
    for (let lat = southEnd; lat <= northEnd; lat += 3) points.push(at(lon, lat));
    path += "M" + points.join("L");
  }
  return path;
}

// borders is the path of all countries, of outlines as page/borders.json has them.
export function borders(outlines) {
  let path = "";
  for (const outline of outlines) {
    const corners = [];
    let lon = 0, lat = 0, west = Infinity, east = -Infinity;
    for (let i = 0; i < outline.length; i += 2) {
      lon += outline[i];
      lat += outline[i + 1];
      west = Math.min(west, lon);
      east = Math.max(east, lon);
      corners.push([lon / 10, lat / 10]);
    }
    for (const shift of [-360, 0, 360]) {
      if (west / 10 + shift >= 180 || east / 10 + shift <= -180) continue;
      path += "M" + corners.map(([a, b]) => at(a + shift, b)).join("L") + "Z";
    }
  }
  return path;
}

// arc is the shortest way between two places, as a path; it is cut where it passes the edge of the map.
export function arc(from, to) {
  const vector = ({ lat, lon }) => [Math.cos(lat * radian) * Math.cos(lon * radian), Math.cos(lat * radian) * Math.sin(lon * radian), Math.sin(lat * radian)];
  const a = vector(from), b = vector(to);
  const angle = Math.acos(Math.max(-1, Math.min(1, a[0] * b[0] + a[1] * b[1] + a[2] * b[2])));
  if (angle < 1e-4) return "";
  let path = "", before = null;
  for (let i = 0; i <= 64; i++) {
    const [p, q] = [Math.sin((1 - i / 64) * angle) / Math.sin(angle), Math.sin((i / 64) * angle) / Math.sin(angle)];
    const [x, y, z] = a.map((v, k) => v * p + b[k] * q);
    const lon = Math.atan2(y, x) / radian, lat = Math.asin(Math.max(-1, Math.min(1, z))) / radian;
    path += (before === null || Math.abs(lon - before) > 180 ? "M" : "L") + at(lon, lat);
    before = lon;
  }
  return path;
}
