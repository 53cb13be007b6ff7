// Queries over the range that the time line shows.

import { useMemo } from "preact/hooks";
import { strategy } from "./editor";
import { Icon } from "./icons";
import { Input } from "./input";
import { Panel } from "./panel";
import { useStore, type Focus } from "./state";
import { duration, parseTime, stamp, within } from "./time";

export function Explore({ metrics, focus }: { metrics: string[]; focus: Focus }) {
  const store = useStore();
  const names = useMemo(() => strategy(store.whole), [store]);
  const panels = store.place.panels;
  return (
    <main class="explore">
      <Toolbar />
      {panels.map((p, i) => (
        <Panel key={p.id} panel={p} place={i} names={names} metrics={metrics} expose={(f) => focus.set(p.id, f)} />
      ))}
      <button type="button" class="add" onClick={() => addPanel()}><Icon name="plus" /> Add a query</button>
    </main>
  );

  function addPanel() {
    const id = store.id();
    store.go({ panels: [...panels, { id, expr: "", tab: "graph", stacked: false, step: 0 }] });
    focus.on(id);
  }
}

/** The range as text, and what moves it. */
export function Toolbar() {
  const store = useStore();
  const { range, whole, zone } = store;
  const length = range.to - range.from;
  const shift = (by: number) => store.setRange(within({ from: range.from + by * length, to: range.to + by * length }, whole));
  const zoom = (by: number) => {
    const middle = (range.from + range.to) / 2;
    store.setRange({ from: middle - (length * by) / 2, to: middle + (length * by) / 2 });
  };
  const edge = (side: "from" | "to") => (text: string) => {
    const ms = text.trim() ? parseTime(text, zone) : whole[side];
    if (ms === undefined) return false;
    const next = { ...range, [side]: Math.min(Math.max(ms, whole.from), whole.to) };
    if (next.to <= next.from) return false;
    store.setRange(next);
    return true;
  };
  const all = store.place.range === null;
  return (
    <div class="toolbar" role="group" aria-label="Range">
      <Input value={stamp(range.from, zone)} label="From" size={21} set={edge("from")} />
      <span class="dim">–</span>
      <Input value={stamp(range.to, zone)} label="To" size={21} set={edge("to")} />
      <span class="length">{duration(length)}</span>
      <span class="buttons">
        <button type="button" aria-label="Earlier" title="Earlier  ," disabled={range.from <= whole.from} onClick={() => shift(-0.5)}><Icon name="left" /></button>
        <button type="button" aria-label="Later" title="Later  ." disabled={range.to >= whole.to} onClick={() => shift(0.5)}><Icon name="right" /></button>
        <button type="button" aria-label="Zoom in" title="Zoom in  +" onClick={() => zoom(0.5)}><Icon name="plus" /></button>
        <button type="button" aria-label="Zoom out" title="Zoom out  −" disabled={all} onClick={() => zoom(2)}><Icon name="minus" /></button>
        <button type="button" title="The whole dump  0" disabled={all} onClick={() => store.setRange(null)}>Whole dump</button>
      </span>
    </div>
  );
}
