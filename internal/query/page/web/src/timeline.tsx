// The dump's time line, on every view: its blocks with gaps and overlaps, and the
// range that is looked at, to be dragged or moved by keys.

import { useEffect, useRef, useState } from "preact/hooks";
import { called, type Block, type Dump } from "./api";
import { bytes, count, plural } from "./format";
import { gaps, pack } from "./lanes";
import { useStore, useWidth, type Store } from "./state";
import { clock, duration, span, stamp, tick, ticks, within, type Range } from "./time";

interface Drag {
  kind: "new" | "move" | "from" | "to";
  origin: number; // where it began
  range: Range; // the range then
  block: Block | undefined; // what lay under the pointer
  x: number;
  moved: boolean;
}

export function Timeline({ open }: { open: boolean }) {
  const store = useStore();
  const track = useRef<HTMLDivElement>(null);
  const width = useWidth(track);
  const [drag, setDrag] = useState<{ range: Range } | null>(null);
  const [hover, setHover] = useState<{ block: Block; dump: Dump } | { gap: Range } | null>(null);
  const active = useRef<Drag | null>(null);
  const { whole, zone } = store;
  const range = drag?.range ?? store.range;
  const left = (ms: number) => `${(((ms - whole.from) / (whole.to - whole.from)) * 100).toFixed(4)}%`;
  const wide = (r: Range) => `${((Math.max(0, Math.min(r.to, whole.to) - Math.max(r.from, whole.from)) / (whole.to - whole.from)) * 100).toFixed(4)}%`;
  const axis = ticks(whole, Math.max(2, Math.floor(width / 90)), zone);

  const time = (e: PointerEvent) => {
    const box = track.current!.getBoundingClientRect();
    return whole.from + Math.min(1, Math.max(0, (e.clientX - box.left) / box.width)) * (whole.to - whole.from);
  };
  const down = (e: PointerEvent) => {
    if (e.button !== 0) return;
    const target = e.target as HTMLElement;
    const at = time(e);
    const grip = target.dataset["grip"] as "from" | "to" | undefined;
    const inside = store.place.range !== null && at > store.range.from && at < store.range.to;
    const ulid = target.dataset["block"];
    const block = ulid ? store.dumps.dumps.flatMap((d) => d.blocks).find((b) => b.ulid === ulid) : undefined;
    active.current = { kind: grip ?? (inside && !e.shiftKey ? "move" : "new"), origin: at, range: store.range, block, x: e.clientX, moved: false };
    track.current!.setPointerCapture(e.pointerId);
  };
  const move = (e: PointerEvent) => {
    const d = active.current;
    if (!d) return;
    d.moved ||= Math.abs(e.clientX - d.x) > 3;
    if (!d.moved) return;
    const at = time(e);
    if (d.kind === "move") setDrag({ range: within({ from: d.range.from + at - d.origin, to: d.range.to + at - d.origin }, whole) });
    else if (d.kind === "from") setDrag({ range: { from: Math.min(at, d.range.to - 1000), to: d.range.to } });
    else if (d.kind === "to") setDrag({ range: { from: d.range.from, to: Math.max(at, d.range.from + 1000) } });
    else setDrag({ range: { from: Math.min(at, d.origin), to: Math.max(at, d.origin) } });
  };
  const up = () => {
    const d = active.current;
    active.current = null;
    if (!d) return;
    if (d.moved && drag) store.setRange(drag.range);
    else if (!d.moved && d.block && open) store.setRange({ from: d.block.minTime, to: d.block.maxTime });
    setDrag(null);
  };
  useEffect(() => {
    const cancel = (e: KeyboardEvent) => {
      if (e.key === "Escape" && active.current) {
        active.current = null;
        setDrag(null);
      }
    };
    addEventListener("keydown", cancel);
    return () => removeEventListener("keydown", cancel);
  }, []);

  const several = store.dumps.dumps.length > 1;
  return (
    <section class={open ? "timeline open" : "timeline"} aria-label="Time line of the dump">
      <div class="track" ref={track} onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={up} onDblClick={() => store.setRange(null)}>
        <div class="ticks" aria-hidden="true">
          {axis.at.map((t) => (
            <i key={t} style={{ left: left(t) }} />
          ))}
        </div>
        {store.dumps.dumps.map((dump, n) => {
          const { lanes, placed } = pack(dump.blocks);
          const least = Math.max(60_000, (whole.to - whole.from) * 0.006);
          return (
            <div class="lanes" key={dump.name + n} data-hue={n % 4} style={{ height: open ? `${lanes * 26 + (several ? 18 : 0)}px` : "8px" }} title={several && !open ? called(dump) : undefined}>
              {open && several ? <span class="lane-name">{called(dump)}</span> : null}
              {gaps(dump.blocks, whole, least).map((g) => (
                <div class="gap" key={g.from} style={{ left: left(g.from), width: wide(g), top: open && several ? "18px" : "0" }} onMouseEnter={() => setHover({ gap: g })} onMouseLeave={() => setHover(null)}>
                  {open && ((g.to - g.from) / (whole.to - whole.from)) * width > 90 ? <span>no data, {duration(g.to - g.from)}</span> : null}
                </div>
              ))}
              {placed.map(({ item: b, lane }) => {
                const props = {
                  key: b.ulid, class: "block", "data-block": b.ulid, "data-level": Math.min(b.level, 4),
                  style: { left: left(b.minTime), width: wide({ from: b.minTime, to: b.maxTime }), top: open ? `${lane * 26 + (several ? 18 : 0)}px` : "0" },
                  onMouseEnter: () => setHover({ block: b, dump }), onMouseLeave: () => setHover(null),
                };
                return open ? (
                  <button {...props} type="button" aria-label={`Block from ${stamp(b.minTime, zone)} to ${stamp(b.maxTime, zone)}: look at its range`}
                    onFocus={() => setHover({ block: b, dump })} onBlur={() => setHover(null)}
                    onClick={(e) => { if (e.detail === 0) store.setRange({ from: b.minTime, to: b.maxTime }); }}>
                    {((b.maxTime - b.minTime) / (whole.to - whole.from)) * width > 170 ? `${count(b.series)} series, ${count(b.samples)} samples` : ""}
                  </button>
                ) : (
                  <div {...props} />
                );
              })}
            </div>
          );
        })}
        <div class="veil" style={{ left: "0", width: left(range.from) }} />
        <div class="veil" style={{ left: left(range.to), right: "0" }} />
        <div class={store.place.range || drag ? "window set" : "window"} style={{ left: left(range.from), width: wide(range) }}>
          <Grip store={store} side="from" range={range} />
          <Grip store={store} side="to" range={range} />
        </div>
      </div>
      <div class="axis" aria-hidden="true">
        {axis.at.map((t) => (
          <span key={t} style={{ left: left(t) }}>{tick(t, axis.step, zone)}</span>
        ))}
      </div>
      {open || hover || drag ? (
        <p class="told" aria-live="polite">
          {drag ? <><b>{span(roundRange(drag.range), zone)}</b> {duration(drag.range.to - drag.range.from)}</> : told(hover, store)}
        </p>
      ) : null}
    </section>
  );
}

const roundRange = (r: Range): Range => ({ from: Math.round(r.from / 1000) * 1000, to: Math.round(r.to / 1000) * 1000 });

function told(hover: { block: Block; dump: Dump } | { gap: Range } | null, store: Store) {
  const { zone } = store;
  if (hover && "gap" in hover) return <><b>No data</b> {span(hover.gap, zone)}, {duration(hover.gap.to - hover.gap.from)}</>;
  if (hover) {
    const b = hover.block;
    return (
      <>
        <b class="mono">{b.ulid}</b> {span({ from: b.minTime, to: b.maxTime }, zone)}, {duration(b.maxTime - b.minTime)} · {plural(b.series, "series", "series")} · {plural(b.samples, "sample")} ·{" "}
        {plural(b.chunks, "chunk")} · {bytes(b.bytes)} · level {b.level}
        {b.origin ? ` · ${b.origin}` : ""}
      </>
    );
  }
  return <>Drag to choose a range, click a block for its own, double-click for all. What is chosen holds for queries and alerts.</>;
}

function Grip({ store, side, range }: { store: Store; side: "from" | "to"; range: Range }) {
  const { whole } = store;
  const keys = (e: KeyboardEvent) => {
    const step = (whole.to - whole.from) * (e.shiftKey ? 0.1 : 0.01);
    const r = { ...range };
    if (e.key === "ArrowLeft" || e.key === "ArrowDown") r[side] -= step;
    else if (e.key === "ArrowRight" || e.key === "ArrowUp") r[side] += step;
    else if (e.key === "Home") r[side] = side === "from" ? whole.from : range.from + 1000;
    else if (e.key === "End") r[side] = side === "to" ? whole.to : range.to - 1000;
    else return;
    e.preventDefault();
    r.from = Math.max(whole.from, Math.min(r.from, range.to - 1000));
    r.to = Math.min(whole.to, Math.max(r.to, range.from + 1000));
    if (side === "from") r.to = range.to;
    else r.from = range.from;
    store.setRange(r, "replace");
  };
  const now = Math.round(range[side]);
  return (
    <div class={`grip ${side}`} data-grip={side} role="slider" tabIndex={0} aria-label={side === "from" ? "Start of the range" : "End of the range"} aria-orientation="horizontal"
      aria-valuemin={whole.from} aria-valuemax={whole.to} aria-valuenow={now} aria-valuetext={stamp(now, store.zone)} title={clock(now, store.zone)} onKeyDown={keys} />
  );
}
