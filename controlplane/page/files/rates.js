// Rates from counters: between the newest reading and one some seconds before.

const window = 20_000, least = 900;

export class Rates {
  #readings = [];

  // add takes the counters of everything at a time in ms.
  add(activity, at) {
    const last = this.#readings.at(-1);
    if (last && at <= last.at) return;
    this.#readings.push({ at, activity });
    while (this.#readings.length > 2 && at - this.#readings[1].at >= window) this.#readings.shift();
  }

  // of is how many a second a counter has counted, undefined while that is not known: rates.of("pops", "sin1", "accepted").
  of(...path) {
    const newest = this.#readings.at(-1);
    const counted = (reading) => path.reduce((at, key) => at?.[key], reading?.activity) ?? undefined;
    const first = this.#readings.find((r) => counted(r) !== undefined && counted(r) <= counted(newest));
    if (!first || newest.at - first.at < least) return undefined;
    return ((counted(newest) - counted(first)) * 1000) / (newest.at - first.at);
  }

  // now is a counter as it was read last.
  now(...path) {
    return path.reduce((at, key) => at?.[key], this.#readings.at(-1)?.activity);
  }
}

// sum adds the rates of all counters whose names match.
export function sum(rates, path, counters, match) {
  let total;
  for (const name of Object.keys(counters ?? {})) {
    const one = match(name) ? rates.of(...path, name) : undefined;
    if (one !== undefined) total = (total ?? 0) + one;
  }
  return total;
}
