// A table of which only the rows in sight are there: it holds 10,000 as easily as ten.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Column {
  key: string;
  title: ComponentChildren;
  label?: string; // of the column, where the title is no text
  chars: number; // how wide
  right?: boolean;
  cell(row: number): ComponentChildren;
  sort?(row: number): number | string;
  first?: "up" | "down"; // which way it sorts when first asked
}

const height = 25;

export function Table(props: {
  label: string;
  columns: Column[];
  rows: number;
  max: number; // height in pixels
  order?: { key: string; down: boolean };
  row?: (row: number) => Record<string, unknown>;
}) {
  const { columns, rows } = props;
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [order, setOrder] = useState(props.order ?? null);
  const sorted = useMemo(() => {
    const all = Array.from({ length: rows }, (_, i) => i);
    const column = columns.find((c) => c.key === order?.key);
    if (!column?.sort || !order) return all;
    const keys = all.map(column.sort);
    const sign = order.down ? -1 : 1;
    return all.sort((a, b) => {
      const [x, y] = [keys[a]!, keys[b]!];
      if (typeof x === "number" && typeof y === "number") return (Number.isNaN(x) ? (Number.isNaN(y) ? 0 : 1) : Number.isNaN(y) ? -1 : sign * (x - y)) || a - b;
      return sign * collate(String(x), String(y)) || a - b;
    });
  }, [columns, rows, order]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = 0;
  }, [rows]);

  const shown = Math.ceil(props.max / height) + 12;
  const begin = Math.max(0, Math.min(Math.floor(top / height) - 6, rows - shown));
  const end = Math.min(rows, begin + shown);
  const chars = columns.reduce((n, c) => n + c.chars, 0);
  const scrolls = rows * height + height + 6 > props.max;
  return (
    <div class="table" ref={box} style={{ maxHeight: `${props.max}px` }} tabIndex={scrolls ? 0 : undefined} role={scrolls ? "region" : undefined} aria-label={scrolls ? props.label : undefined} onScroll={(e) => setTop(e.currentTarget.scrollTop)}>
      <table aria-label={props.label} aria-rowcount={rows + 1} style={{ minWidth: `${chars}ch` }}>
        <colgroup>
          {columns.map((c, i) => (
            <col key={c.key} style={i < columns.length - 1 ? { width: `${c.chars}ch` } : {}} />
          ))}
        </colgroup>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map((c) => (
              <th key={c.key} scope="col" class={c.right ? "right" : ""} aria-label={c.label} aria-sort={order?.key === c.key ? (order.down ? "descending" : "ascending") : undefined}>
                {c.sort ? (
                  <button type="button" onClick={() => setOrder(order?.key === c.key ? { key: c.key, down: !order.down } : { key: c.key, down: c.first === "down" })}>
                    {c.title}
                    <span class="order" aria-hidden="true">{order?.key === c.key ? (order.down ? "↓" : "↑") : ""}</span>
                  </button>
                ) : (
                  c.title
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {begin > 0 ? <tr class="space" aria-hidden="true" style={{ height: `${begin * height}px` }} /> : null}
          {sorted.slice(begin, end).map((row, i) => (
            <tr key={row} aria-rowindex={begin + i + 2} {...props.row?.(row)}>
              {columns.map((c) => (
                <td key={c.key} class={c.right ? "right" : ""}>{c.cell(row)}</td>
              ))}
            </tr>
          ))}
          {end < rows ? <tr class="space" aria-hidden="true" style={{ height: `${(rows - end) * height}px` }} /> : null}
        </tbody>
      </table>
    </div>
  );
}

const collator = new Intl.Collator("en", { numeric: true });
const collate = (a: string, b: string) => collator.compare(a, b);

/** How many characters a column of these texts takes; the longest of a sample, within bounds. */
export function chars(title: string, n: number, text: (i: number) => string, most = 42): number {
  let max = title.length + 2;
  const stride = Math.max(1, Math.floor(n / 500));
  for (let i = 0; i < n; i += stride) max = Math.max(max, text(i).length);
  return Math.min(most, max + 3);
}
