// Lines over time, by uPlot.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { short } from "./format";
import type { Matrix } from "./messages";
import { short as name, type Shape } from "./series";
import { useWidth } from "./state";
import { stamp, tick, ticks, type Range, type Zone } from "./time";

const light = ["#0b7a83", "#c2521a", "#6a4fc0", "#3f7d20", "#b3306b", "#2b62b8", "#8f6a00", "#0a8a5b", "#a33b3b", "#5c6670", "#8a3fa8", "#1d7fae"];
const dark = ["#4fc4c9", "#f0945a", "#a994f5", "#8ccf63", "#ee7fb0", "#7fb0f5", "#dcb54a", "#52d3a0", "#f08a86", "#a9b4bf", "#cf8fe8", "#63c5ef"];
export const colour = (n: number, isDark: boolean) => (isDark ? dark : light)[n % light.length]!;

export interface GraphProps {
  matrix: Matrix;
  shape: Shape;
  drawn: number[]; // series, in the order of the legend
  focus: number | null; // one of them to be seen before the others
  range: Range;
  at: number | null;
  stacked: boolean;
  zone: Zone;
  dark: boolean;
  label: string;
  onZoom(r: Range): void;
  onReset(): void;
  onInstant(ms: number): void;
  onCursor(point: number | null): void;
}

export function Graph(props: GraphProps) {
  const box = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const width = useWidth(box);
  const latest = useRef(props);
  latest.current = props;
  const { matrix, drawn, stacked, zone, dark: isDark, range } = props;

  useEffect(() => {
    if (!width) return;
    const shown = tip.current!;
    const u = new uPlot(options(latest, shown, width), data(matrix, drawn, stacked), box.current!);
    plot.current = u;
    return () => {
      plot.current = null;
      shown.hidden = true;
      u.destroy();
    };
    // A new width resizes; only the first one builds.
  }, [matrix, drawn, stacked, zone, isDark, range.from, range.to, width > 0]);
  useEffect(() => {
    if (plot.current && width) plot.current.setSize({ width, height });
  }, [width]);
  useEffect(() => plot.current?.redraw(false), [props.at]);
  useEffect(() => {
    const n = props.focus === null ? -1 : drawn.indexOf(props.focus);
    plot.current?.setSeries(n < 0 ? null : n + 1, { focus: true });
  }, [props.focus]);

  const keys = (e: KeyboardEvent) => {
    const u = plot.current;
    if (!u || e.ctrlKey || e.metaKey || e.altKey) return;
    const step = (e.shiftKey ? 10 : 1) * (e.key === "ArrowLeft" ? -1 : 1);
    if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      const at = Math.min(matrix.points - 1, Math.max(0, u.cursor.idx == null ? (step > 0 ? 0 : matrix.points - 1) : u.cursor.idx + step));
      u.setCursor({ left: u.valToPos(matrix.from + at * matrix.step, "x"), top: u.over.clientHeight / 2 });
    } else if (e.key === "Enter" && u.cursor.idx != null) props.onInstant(matrix.from + u.cursor.idx * matrix.step);
    else return;
    e.preventDefault();
  };
  return (
    <div class="graph" ref={box} tabIndex={0} role="img" aria-label={props.label} onKeyDown={keys}>
      <div class="tip" ref={tip} hidden />
    </div>
  );
}

const height = 268;

/** Columns for uPlot, which takes null for what is not there. */
function data(m: Matrix, drawn: number[], stacked: boolean): uPlot.AlignedData {
  const xs = Array.from({ length: m.points }, (_, i) => m.from + i * m.step);
  let below: (number | null)[] | undefined;
  const lines = drawn.map((n) => {
    const line: (number | null)[] = Array.from(m.values.subarray(n * m.points, (n + 1) * m.points), (v) => (Number.isFinite(v) ? v : null));
    if (!stacked) return line;
    const sum = line.map((v, i) => (v === null && (below?.[i] ?? null) === null ? null : (v ?? 0) + (below?.[i] ?? 0)));
    below = sum;
    return sum;
  });
  return [xs, ...lines];
}

function options(latest: { current: GraphProps }, tip: HTMLElement, width: number): uPlot.Options {
  const { matrix: m, drawn, stacked, zone, dark: isDark, range } = latest.current;
  const css = (v: string) => getComputedStyle(document.documentElement).getPropertyValue(v).trim();
  const font = `11px ${css("--mono")}`;
  const axis = { stroke: css("--dim"), font, grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false } };
  const many = drawn.length > 40;
  let clicked: ReturnType<typeof setTimeout> | undefined;
  let inside = false;
  let dragged = false;

  const series = drawn.map((n): uPlot.Series => {
    const c = colour(n, isDark);
    return {
      stroke: c, width: many ? 1 : 1.5, spanGaps: false,
      ...(stacked ? { fill: c + (isDark ? "59" : "4d") } : {}),
      points: { size: 4, fill: c, filter: (u, n, show) => isolated(u, n, show) },
    };
  });
  return {
    width, height, series: [{}, ...series],
    ...(stacked ? { bands: drawn.slice(1).map((_, k) => ({ series: [k + 2, k + 1] as [number, number] })) } : {}),
    legend: { show: false },
    padding: [10, 24, 0, 0],
    scales: { x: { time: false, range: () => [range.from, range.to] }, y: { range: (_, min, max) => bounds(min, max, stacked) } },
    axes: [
      { ...axis, size: 26, gap: 6, splits: (u) => ticks(range, Math.max(2, Math.floor((u.width - 70) / 84)), zone).at, values: (u, at) => at.map((t) => tick(t, ticks(range, Math.max(2, Math.floor((u.width - 70) / 84)), zone).step, zone)) },
      { ...axis, gap: 8, space: 36, size: (_, values) => 20 + 6.7 * Math.max(5, ...(values ?? []).map((v) => v.length)), values: (_, at) => at.map((v) => short(v, 6)) },
    ],
    focus: { alpha: 0.4 },
    cursor: {
      sync: { key: "promdump", setSeries: false },
      focus: { prox: many ? 12 : 24 },
      drag: { x: true, y: false, setScale: false },
      points: { size: 7 },
      bind: { dblclick: () => () => (clearTimeout(clicked), latest.current.onReset(), null) },
    },
    hooks: {
      ready: [(u) => {
        u.over.addEventListener("mouseenter", () => (inside = true));
        u.over.addEventListener("mouseleave", () => {
          inside = false;
          tip.hidden = true;
        });
        u.over.addEventListener("click", () => {
          const idx = u.cursor.idx;
          if (dragged || idx == null) return;
          clearTimeout(clicked);
          clicked = setTimeout(() => latest.current.onInstant(m.from + idx * m.step), 260);
        });
        u.over.addEventListener("mousedown", () => (dragged = false));
      }],
      setSelect: [(u) => {
        if (u.select.width < 4) return;
        dragged = true;
        const r = { from: u.posToVal(u.select.left, "x"), to: u.posToVal(u.select.left + u.select.width, "x") };
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        latest.current.onZoom(r);
      }],
      setCursor: [(u) => {
        latest.current.onCursor(u.cursor.idx ?? null);
        if (inside || box(u).contains(document.activeElement)) showTip(u, tip, latest.current);
      }],
      draw: [(u) => {
        const { at } = latest.current;
        if (at === null || at < range.from || at > range.to) return;
        const x = Math.round(u.valToPos(at, "x", true)) + 0.5;
        u.ctx.save();
        u.ctx.strokeStyle = css("--accent");
        u.ctx.setLineDash([4, 3]);
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
        u.ctx.restore();
      }],
    },
  };
}

const box = (u: uPlot) => u.root.parentElement!;

// A line needs two points: one that stands alone would not be seen.
function isolated(u: uPlot, n: number, show: boolean): number[] | null {
  if (show) return null;
  const line = u.data[n]!;
  const out: number[] = [];
  for (let i = 0; i < line.length; i++) if (line[i] != null && line[i - 1] == null && line[i + 1] == null) out.push(i);
  return out;
}

function bounds(min: number | null, max: number | null, stacked: boolean): [number, number] {
  if (min == null || max == null) return [0, 1];
  if (stacked) [min, max] = [Math.min(0, min), Math.max(0, max)];
  if (min === max) return min === 0 ? [0, 1] : [Math.min(0, min * 1.2), Math.max(0, max * 1.2)];
  // What begins near nothing begins at nothing.
  if (min > 0 && min < (max - min) * 0.6) min = 0;
  const space = (max - min) * 0.06;
  return [min === 0 ? 0 : min - space, max === 0 ? 0 : max + space];
}

function showTip(u: uPlot, tip: HTMLElement, p: GraphProps): void {
  const { idx, left = -1, top = -1 } = u.cursor;
  if (idx == null || left < 0) {
    tip.hidden = true;
    return;
  }
  let best = -1;
  let least = Infinity;
  p.drawn.forEach((_, k) => {
    const v = u.data[k + 1]![idx];
    if (v == null) return;
    const d = Math.abs(u.valToPos(v, "y") - top);
    if (d < least) [best, least] = [k, d];
  });
  const time = document.createElement("b");
  time.textContent = stamp(p.matrix.from + idx * p.matrix.step, p.zone);
  tip.replaceChildren(time);
  if (best >= 0) {
    const n = p.drawn[best]!;
    const line = document.createElement("div");
    const dot = document.createElement("i");
    dot.style.background = colour(n, p.dark);
    const value = document.createElement("strong");
    value.textContent = short(p.matrix.values[n * p.matrix.points + idx]!, 6);
    const text = document.createElement("span");
    text.textContent = name(p.matrix.labels[n]!, p.shape);
    line.append(dot, value, text);
    tip.append(line);
  }
  tip.hidden = false;
  const x = left + u.over.offsetLeft;
  const right = x > u.root.clientWidth / 2;
  tip.style.left = right ? "" : `${x + 14}px`;
  tip.style.right = right ? `${u.root.clientWidth - x + 14}px` : "";
  tip.style.top = `${Math.max(4, Math.min(top, u.over.clientHeight - 60))}px`;
}
