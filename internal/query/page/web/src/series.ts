// Names of series, as a person tells them apart.

export type Labels = Record<string, string>;

const plain = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
export const isPlainMetric = (name: string) => /^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(name);
const label = (name: string) => (plain.test(name) ? name : JSON.stringify(name));

/** metric{a="b"}, as PromQL has it. */
export function text(ls: Labels): string {
  const { __name__: name = "", ...rest } = ls;
  const inner = Object.keys(rest).sort().map((k) => `${label(k)}=${JSON.stringify(rest[k])}`);
  if (name && !isPlainMetric(name)) inner.unshift(JSON.stringify(name));
  const shown = isPlainMetric(name) ? name : "";
  return inner.length ? `${shown}{${inner.join(", ")}}` : shown || "{}";
}

/** A selector for one metric, whatever its name is made of. */
export const selector = (name: string) => (isPlainMetric(name) ? name : `{${JSON.stringify(name)}}`);

export interface Shape {
  common: Labels; // what all have alike
  varying: string[]; // names of the others, the metric's name first
}

/** Tells what all series have in common from what tells them apart. */
export function shape(all: readonly Labels[]): Shape {
  const common: Labels = { ...all[0] };
  const names = new Set<string>(Object.keys(common));
  for (const ls of all) {
    for (const k of Object.keys(ls)) names.add(k);
    for (const k of Object.keys(common)) if (ls[k] !== common[k]) delete common[k];
  }
  const varying = [...names].filter((k) => !(k in common)).sort((a, b) => (a === "__name__" ? -1 : b === "__name__" ? 1 : a < b ? -1 : 1));
  return { common, varying };
}

/** What distinguishes this series: its varying labels, or all if there are none. */
export function short(ls: Labels, s: Shape): string {
  if (!s.varying.length) return text(ls);
  return text(Object.fromEntries(s.varying.filter((k) => ls[k] !== undefined).map((k) => [k, ls[k]!])));
}

/** The query with which one looks at a metric: what its name promises. */
export function suggestion(name: string): { what: string; expr: string } | undefined {
  const s = selector(name);
  if (name.endsWith("_bucket")) return { what: "p90", expr: `histogram_quantile(0.9, sum by (le) (rate(${s}[5m])))` };
  if (/_(total|count|sum)$/.test(name)) return { what: "rate", expr: `rate(${s}[5m])` };
  return undefined;
}

/** The known name that is nearest to one that is not known, if any is near. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.min(4, Math.ceil(name.length / 4)) + 1;
  for (const k of known) {
    if (Math.abs(k.length - name.length) >= least) continue;
    const d = distance(name, k, least);
    if (d < least) [best, least] = [k, d];
  }
  return best;
}

function distance(a: string, b: string, limit: number): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    let low = i;
    for (let j = 1; j <= b.length; j++) {
      const d = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      next.push(d);
      low = Math.min(low, d);
    }
    if (low >= limit) return limit;
    row = next;
  }
  return row[b.length]!;
}

// What looks like a metric's name in a query: no label, function or keyword.
const words = new Set(["by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "and", "or", "unless", "inf", "nan", "start", "end", "atan2"]);

export function mentioned(expr: string): string[] {
  const bare = expr.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/g, '""').replace(/\{[^}]*\}/g, "{}").replace(/\[[^\]]*\]/g, "")
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, "");
  const found = [...bare.matchAll(/[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()(?![a-zA-Z0-9_:])/g)].filter((m) => !/[0-9.]/.test(bare[m.index - 1] ?? "")).map((m) => m[0]);
  return [...new Set(found)].filter((w) => !words.has(w.toLowerCase()) && !new RegExp(`\\b${w}\\s*\\(`).test(bare));
}
