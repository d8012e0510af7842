// Where names of marks stand, so that they do not cover each other.

const high = 14, perLetter = 7.2, away = 13;

// labels gives each mark, in pixels at its `at`, a `label` (where its text begins, from the mark) unless there is no room, and moves marks
// that stand on each other apart. What is not well gets its name first, and is drawn last.
export function labels(marks, [width, height]) {
  const worst = (m) => (m.state === "well" ? 0 : m.state === "unknown" ? 1 : 2);
  const order = [...marks].sort((a, b) => worst(b) - worst(a) || Number(a.isCluster) - Number(b.isCluster));
  const taken = [];
  const placed = order.map((m) => {
    let at = m.at;
    for (let i = 0; i < 8 && taken.some((t) => t.mark && Math.hypot(t.x - at[0], t.y - at[1]) < 17); i++) {
      const turn = (i * Math.PI) / 4 + Math.PI / 2;
      at = [m.at[0] + Math.cos(turn) * 19, m.at[1] + Math.sin(turn) * 19];
    }
    taken.push({ mark: true, x: at[0], y: at[1], box: [at[0] - 9, at[1] - 9, at[0] + 9, at[1] + 9] });
    return { ...m, at };
  });
  for (const m of placed) {
    const long = m.name.length * perLetter, [x, y] = m.at;
    m.label = [[away, 4], [-away - long, 4], [-long / 2, away + 11], [-long / 2, -away], [away - 4, -away + 3], [away - 4, away + 8]].find(([dx, dy]) => {
      const box = [x + dx, y + dy - high + 3, x + dx + long, y + dy + 3];
      const free = box[0] >= 0 && box[2] <= width && box[1] >= 0 && box[3] <= height && !taken.some((t) => overlap(t.box, box));
      if (free) taken.push({ box });
      return free;
    });
  }
  return placed.reverse();
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
