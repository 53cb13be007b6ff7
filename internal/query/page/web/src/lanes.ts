// Where intervals go on a time line.

import type { Range } from "./time";

export interface Interval {
  minTime: number;
  maxTime: number;
}

/** Gives each interval the first lane in which it overlaps nothing. */
export function pack<T extends Interval>(all: readonly T[]): { lanes: number; placed: { item: T; lane: number }[] } {
  const ends: number[] = [];
  const placed = [...all].sort((a, b) => a.minTime - b.minTime || b.maxTime - a.maxTime).map((item) => {
    let lane = ends.findIndex((end) => end <= item.minTime);
    if (lane < 0) lane = ends.length;
    ends[lane] = item.maxTime;
    return { item, lane };
  });
  return { lanes: Math.max(1, ends.length), placed };
}

/**
 * What no interval covers. Blocks end where their last sample is, so that there
 * is a scrape interval between any two: what is shorter than least is no gap.
 */
export function gaps(all: readonly Interval[], outer: Range, least: number): Range[] {
  const out: Range[] = [];
  let end = outer.from;
  for (const i of [...all].sort((a, b) => a.minTime - b.minTime)) {
    if (i.minTime - end > least) out.push({ from: end, to: i.minTime });
    end = Math.max(end, i.maxTime);
  }
  if (outer.to - end > least) out.push({ from: end, to: outer.to });
  return out;
}
