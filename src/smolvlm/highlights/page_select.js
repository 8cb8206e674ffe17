// select.py in another language, so that the page chooses what the command would: a test compares the two.
const NEAR = 1e-6, SPLIT = 3, POINTS = 33;

function upper(sorted, value) {
  let index = 0;
  while (index < sorted.length && sorted[index] <= value) index += 1;
  return index;
}

function interpolate(x, xs, ys) {
  if (x <= xs[0]) return ys[0];
  if (x >= xs[xs.length - 1]) return ys[ys.length - 1];
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return xs[high] === xs[low] ? ys[high] : ys[low] + (ys[high] - ys[low]) * (x - xs[low]) / (xs[high] - xs[low]);
}

function smoothed(curve, duration, cuts, width) {
  const ends = [...curve.times_s.slice(1), duration];
  const cells = curve.times_s.map((time, index) => [time, ends[index], curve.scores[index]])
    .filter(([start, end]) => end > start);
  if (!width) return cells;
  const shots = [];
  let last = -1;
  for (const cell of cells) {
    const shot = upper(cuts, cell[0] + NEAR);
    if (shot !== last) shots.push([]);
    shots[shots.length - 1].push(cell);
    last = shot;
  }
  return shots.flatMap((shot) => {
    const times = [shot[0][0], ...shot.map((cell) => cell[1])];
    const integral = [0];
    for (const [start, end, score] of shot) integral.push(integral[integral.length - 1] + (end - start) * score);
    const xs = [times[0] - width, ...times, times[times.length - 1] + width];
    const ys = [-width * shot[0][2], ...integral, integral[integral.length - 1] + width * shot[shot.length - 1][2]];
    return shot.map(([start, end]) => {
      let sum = 0;
      for (let point = 0; point < POINTS; point += 1) {
        const x = start + (end - start) * point / (POINTS - 1);
        sum += interpolate(x + width / 2, xs, ys) - interpolate(x - width / 2, xs, ys);
      }
      return [start, end, Math.min(1, Math.max(0, sum / POINTS / width))];
    });
  });
}

function shortened(run, longest) {
  const borders = [], integral = [];
  let sum = 0;
  for (const [start, end, score] of run) {
    borders.push(start, end);
    integral.push(sum, sum += (end - start) * score);
  }
  const best = (cells) => cells.reduce((most, cell) => Math.max(most, cell[2]), 0);
  const found = [], left = [[run[0][0], run[run.length - 1][1]]];
  while (left.length) {
    const [start, end] = left.pop();
    const inside = run.filter((cell) => cell[0] < end - NEAR && cell[1] > start + NEAR);
    if (end - start < NEAR || !inside.length) continue;
    if (longest === null || end - start <= longest + NEAR) {
      found.push({start, end, score: best(inside)});
      continue;
    }
    const places = inside.map((cell) => Math.min(Math.max(start, cell[0]), end - longest));
    const held = places.map((from) => interpolate(from + longest, borders, integral) - interpolate(from, borders, integral));
    const most = held.reduce((one, other) => Math.max(one, other));
    const from = places[held.findIndex((one) => one >= most - NEAR)];
    found.push({start: from, end: from + longest, score: best(inside.filter(([at, to]) => at < from + longest && to > from))});
    left.push([start, from], [from + longest, end]);
  }
  return found;
}

function candidates(cells, cuts, how) {
  const runs = [];
  for (const cell of cells) {
    if (cell[2] < how.threshold) continue;
    const run = runs[runs.length - 1];
    if (run && cell[0] - run[run.length - 1][1] < Math.max(how.join_s, NEAR)) run.push(cell);
    else runs.push([cell]);
  }
  const found = [];
  for (const run of runs) {
    const parts = [];
    let rest = run;
    for (const cut of cuts) {
      if (cut - rest[0][0] >= SPLIT && rest[rest.length - 1][1] - cut >= SPLIT) {
        const before = rest.filter((cell) => cell[0] < cut - NEAR);
        if (before.length < rest.length) {
          parts.push(before);
          rest = rest.slice(before.length);
        }
      }
    }
    for (const part of [...parts, rest]) {
      found.push(...shortened(part, how.longest_s));
    }
  }
  return found;
}

function bordered(one, duration, cuts, how) {
  let start = Math.max(0, one.start - how.padding_s), end = Math.min(duration, one.end + how.padding_s);
  const before = upper(cuts, one.start + NEAR) - 1;
  const after = cuts.findIndex((cut) => cut >= one.end - NEAR);
  if (before >= 0) start = Math.max(start, cuts[before]);
  if (after >= 0) end = Math.min(end, cuts[after]);
  const snapped = (second) => {
    if (!cuts.length) return second;
    const near = cuts.reduce((best, cut) => Math.abs(cut - second) < Math.abs(best - second) ? cut : best);
    return Math.abs(near - second) <= how.snap_s ? near : second;
  };
  start = snapped(start);
  end = snapped(end);
  return end > start ? {...one, start, end} : one;
}

function select(curve, duration, cuts, how) {
  const gap = (one, other) => Math.max(one.start, other.start) - Math.min(one.end, other.end);
  const kept = [];
  let total = 0;
  const ordered = candidates(smoothed(curve, duration, cuts, how.smooth_s), cuts, how)
    .sort((one, other) => other.score - one.score || one.start - other.start);
  for (const one of ordered) {
    if (how.top !== null && kept.length === how.top) break;
    let shown = bordered(one, duration, cuts, how);
    if (how.min_gap_s && kept.some((other) => gap(shown, other) < how.min_gap_s - NEAR)) continue;
    const left = how.target_length_s === null ? Infinity : how.target_length_s - total;
    const length = shown.end - shown.start;
    if (length > left + NEAR) {
      if (kept.length) continue;
      const start = shown.start + (length - left) / 2;
      shown = {...shown, start, end: start + left};
    }
    kept.push(shown);
    total += shown.end - shown.start;
  }
  const whole = [];
  for (const one of kept.sort((a, b) => a.start - b.start)) {
    const last = whole[whole.length - 1];
    if (last && gap(last, one) < -NEAR) {
      whole[whole.length - 1] = {...last, end: Math.max(last.end, one.end), score: Math.max(last.score, one.score)};
    } else whole.push(one);
  }
  return whole;
}
