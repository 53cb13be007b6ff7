// A native histogram's buckets, as wide as each other (they grow by a factor) and
// as high as their counts.

import { count } from "./format";
import type { Histogram } from "./messages";

export function Buckets({ h }: { h: Histogram }) {
  const max = Math.max(...h.buckets.map((b) => b.count));
  if (!h.buckets.length) return <span class="dim">no buckets</span>;
  return (
    <span class="buckets" role="img" aria-label={`${count(h.buckets.length)} buckets from ${h.buckets[0]!.lower} to ${h.buckets.at(-1)!.upper}`}>
      {h.buckets.map((b) => (
        <i key={b.bounds} title={`${b.bounds}: ${b.count}`}><b style={{ height: `${((b.count / max) * 100).toFixed(1)}%` }} /></i>
      ))}
    </span>
  );
}
