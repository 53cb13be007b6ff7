// Times are Unix milliseconds everywhere; a person sees them in UTC, or in the
// browser's zone when asked.

export type Zone = "utc" | "local";

export interface Range {
  from: number;
  to: number;
}

const two = (n: number) => String(n).padStart(2, "0");

interface Parts {
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
  second: number;
  ms: number;
}

function parts(ms: number, zone: Zone): Parts {
  const d = new Date(ms);
  return zone === "utc"
    ? { year: d.getUTCFullYear(), month: d.getUTCMonth() + 1, day: d.getUTCDate(), hour: d.getUTCHours(), minute: d.getUTCMinutes(), second: d.getUTCSeconds(), ms: d.getUTCMilliseconds() }
    : { year: d.getFullYear(), month: d.getMonth() + 1, day: d.getDate(), hour: d.getHours(), minute: d.getMinutes(), second: d.getSeconds(), ms: d.getMilliseconds() };
}

export const day = (ms: number, zone: Zone) => {
  const p = parts(ms, zone);
  return `${p.year}-${two(p.month)}-${two(p.day)}`;
};

/** 22:33:00, with milliseconds only where there are any. */
export const clock = (ms: number, zone: Zone) => {
  const p = parts(ms, zone);
  return `${two(p.hour)}:${two(p.minute)}:${two(p.second)}${p.ms ? "." + String(p.ms).padStart(3, "0") : ""}`;
};

export const stamp = (ms: number, zone: Zone) => `${day(ms, zone)} ${clock(ms, zone)}`;

/** From and to, the second day only where it is another. */
export function span(r: Range, zone: Zone): string {
  const same = day(r.from, zone) === day(r.to, zone);
  return `${stamp(r.from, zone)} – ${same ? clock(r.to, zone) : stamp(r.to, zone)}`;
}

/** A label for a tick of an axis whose ticks are step apart. */
export function tick(ms: number, step: number, zone: Zone): string {
  const p = parts(ms, zone);
  if (step >= 86_400_000 || (p.hour === 0 && p.minute === 0 && p.second === 0 && p.ms === 0)) return `${two(p.month)}-${two(p.day)}`;
  if (step >= 60_000) return `${two(p.hour)}:${two(p.minute)}`;
  if (step >= 1000) return `${two(p.hour)}:${two(p.minute)}:${two(p.second)}`;
  return `:${two(p.second)}.${String(p.ms).padStart(3, "0")}`;
}

const units: [string, number][] = [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000], ["ms", 1]];

/** 1h 30m; two units are enough for a person. */
export function duration(ms: number): string {
  let rest = Math.round(Math.abs(ms));
  const out: string[] = [];
  for (const [name, size] of units) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n) out.push(n + name);
    else if (out.length) break;
    if (out.length === 2) break;
  }
  return out.join(" ") || "0s";
}

/** Milliseconds of 15s, 1m30s, 0.5 (seconds); undefined where it is none. */
export function parseDuration(text: string): number | undefined {
  text = text.trim();
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) > 0 ? Math.round(Number(text) * 1000) : undefined;
  const all: Record<string, number> = { w: 604_800_000, y: 31_536_000_000, ...Object.fromEntries(units) };
  if (!/^(\d+(ms|[smhdwy])\s*)+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, n, unit] of text.matchAll(/(\d+)(ms|[smhdwy])/g)) ms += Number(n) * all[unit!]!;
  return ms || undefined;
}

/** What the command line takes too: 2021-04-01 10:00:00, RFC 3339, Unix seconds or milliseconds. */
export function parseTime(text: string, zone: Zone): number | undefined {
  text = text.trim();
  if (/^\d{9,14}(\.\d+)?$/.test(text)) {
    const n = Number(text);
    return Math.round(n > 1e11 ? n : n * 1000);
  }
  const found = /^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3})\d*)?)?\s*(Z|UTC|[+-]\d\d:\d\d)?)?$/.exec(text);
  if (!found) return undefined;
  const [, y, mo, d, h = "0", mi = "0", s = "0", frac = "0", offset] = found;
  const n = [Number(y), Number(mo) - 1, Number(d), Number(h), Number(mi), Number(s), Number(frac.padEnd(3, "0"))] as const;
  if (n[1] > 11 || n[2] < 1 || n[2] > 31 || n[3] > 23 || n[4] > 59 || n[5] > 59) return undefined;
  if (offset || zone === "utc") {
    const sign = offset?.startsWith("-") ? -1 : 1;
    const east = offset && /\d/.test(offset) ? sign * (Number(offset.slice(1, 3)) * 60 + Number(offset.slice(4, 6))) : 0;
    return Date.UTC(...n) - east * 60_000;
  }
  return new Date(...n).getTime();
}

const nice = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000,
  7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000, 1_209_600_000, 2_592_000_000];

/** The smallest round step with which length has at most count steps. */
export const niceStep = (length: number, count: number) => nice.find((s) => length / s <= count) ?? Math.ceil(length / count / nice.at(-1)!) * nice.at(-1)!;

/** Ticks at round times of the zone, at most count of them. */
export function ticks(r: Range, count: number, zone: Zone): { step: number; at: number[] } {
  const step = niceStep(r.to - r.from, count);
  const offset = zone === "local" ? new Date(r.from).getTimezoneOffset() * 60_000 : 0;
  const at: number[] = [];
  for (let t = Math.ceil((r.from - offset) / step) * step + offset; t <= r.to; t += step) at.push(t);
  return { step, at };
}

/** The step of a range query: at most points of them, and none below a second. */
export const autoStep = (r: Range, points = 240) => Math.max(1000, niceStep(r.to - r.from, points));

/** The part of a range that lies in another; of its length, where it can. */
export function within(r: Range, outer: Range): Range {
  const length = Math.min(r.to - r.from, outer.to - outer.from);
  const from = Math.min(Math.max(r.from, outer.from), outer.to - length);
  return { from: Math.round(from), to: Math.round(from + length) };
}
