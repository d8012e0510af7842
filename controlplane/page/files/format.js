// Times, numbers and places as people read them.

// span is a duration in words, rounded as one would say it.
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.round(s / 60);
  if (min < 90) return `${min} min`;
  const h = Math.round(min / 60);
  return h < 48 ? `${h} h` : `${Math.round(h / 24)} days`;
}

// isSet reports whether a time of the API is one: Go's zero time is in the year 1.
export const isSet = (time) => Boolean(time) && !time.startsWith("0001-");

const parts = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(undefined, parts), calendar = new Intl.DateTimeFormat(undefined, { ...parts, year: "numeric" });

// when is a time of the day, with the year where it is another one.
export function when(time) {
  if (!isSet(time)) return "–";
  const date = new Date(time);
  return (date.getFullYear() === new Date().getFullYear() ? clock : calendar).format(date);
}

// number is a count or a rate, short.
export function number(n) {
  if (!Number.isFinite(n)) return "–";
  const abs = Math.abs(n);
  if (abs >= 1e6) return `${(n / 1e6).toFixed(abs < 1e7 ? 1 : 0)} M`;
  if (abs >= 1e4) return `${(n / 1e3).toFixed(0)} k`;
  if (abs >= 100 || Number.isInteger(n)) return String(Math.round(n));
  return n.toFixed(abs < 1 ? 2 : 1);
}

export const rate = (n) => (n === undefined ? "–" : `${number(n)}/s`);

export function octets(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1024;
  }
}

// percent is a share of 0..1; what is there but small is not shown as nothing.
export function percent(share) {
  if (!share) return "0 %";
  const p = share * 100;
  return p < 0.1 ? "< 0.1 %" : `${p < 10 ? p.toFixed(1) : Math.round(p)} %`;
}

export const ms = (n) => (n === undefined || n === null ? "–" : n >= 4e6 ? "none" : `${n < 10 ? n.toFixed(1) : Math.round(n)} ms`);

export const place = (lat, lon) =>
  `${Math.abs(lat).toFixed(1)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(1)}° ${lon < 0 ? "W" : "E"}`;

export const plural = (n, one, many) => `${n} ${n === 1 ? one : (many ?? one + "s")}`;

// list joins words as in a sentence.
export function list(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

// join puts a separator between elements.
export const join = (items, separator) => items.flatMap((item, i) => (i ? [separator, item] : [item]));
