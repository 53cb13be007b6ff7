// One query with its answer.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { CompleteStrategy } from "@prometheus-io/codemirror-promql/dist/esm/complete";
import { APIError, unreachable } from "./api";
import { Buckets } from "./buckets";
import { Editor } from "./editor";
import { count, exact, plural, short } from "./format";
import { Graph, colour } from "./graph";
import { Icon } from "./icons";
import { Input } from "./input";
import type { Matrix, Result, Vector } from "./messages";
import { Nothing } from "./nothing";
import { shape, text, type Labels, type Shape } from "./series";
import { useDark, useStore } from "./state";
import { chars, Table, type Column } from "./table";
import { autoStep, clock, duration, parseDuration, parseTime, stamp } from "./time";
import type { Panel as PanelState } from "./url";

/** More lines than this tell nothing and take long to draw. */
export const most = 200;

export function Panel({ panel, place, names, metrics, expose }: {
  panel: PanelState;
  place: number; // from 0
  names: CompleteStrategy;
  metrics: string[];
  expose(focus: (() => void) | null): void; // so that a key of the page can reach the editor
}) {
  const store = useStore();
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<Editor | null>(null);
  const [draft, setDraft] = useState(panel.expr);
  const [again, setAgain] = useState(0);
  const [answer, setAnswer] = useState<{ result?: Result; error?: APIError; of: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const { range, at } = store;
  const step = panel.step || Math.max(autoStep(range), store.interval);

  const run = (text: string) => {
    text = text.trim();
    if (text === panel.expr) setAgain((n) => n + 1);
    else store.setPanel(panel.id, { expr: text });
  };
  const latest = useRef(run);
  latest.current = run;

  useLayoutEffect(() => {
    const e = new Editor(host.current!, panel.expr, names, `Query ${place + 1}, PromQL`, {
      run: (text) => latest.current(text),
      change: setDraft,
      leave: () => host.current!.closest<HTMLElement>(".panel")!.focus(),
    });
    editor.current = e;
    expose(() => e.focus());
    return () => {
      expose(null);
      e.destroy();
    };
  }, []);
  // Before anybody can type again: after the paint it would take away what was typed since.
  useLayoutEffect(() => {
    if (editor.current) editor.current.text = panel.expr;
  }, [panel.expr]);

  useEffect(() => {
    if (!panel.expr) {
      setAnswer(null);
      return;
    }
    const abort = new AbortController();
    const soon = setTimeout(() => setBusy(true), 120); // what is quick does not flicker
    const request = panel.tab === "graph"
      ? ({ kind: "range", expr: panel.expr, from: Math.ceil(range.from / step) * step, to: range.to, step } as const)
      : ({ kind: "instant", expr: panel.expr, at } as const);
    store.querier
      .run(request, abort.signal)
      .then((result) => setAnswer({ result, of: panel.expr }), (error: APIError) => setAnswer({ error, of: panel.expr }))
      .finally(() => {
        clearTimeout(soon);
        setBusy(false);
      });
    return () => {
      clearTimeout(soon);
      abort.abort();
    };
  }, [panel.expr, panel.tab, range.from, range.to, panel.tab === "graph" ? step : at, again]);

  const where = answer?.error ? position(answer.error.message) : null;
  useEffect(() => editor.current?.mark(where, where?.message), [answer]);

  const panels = store.place.panels;
  const move = (by: number) => {
    const next = [...panels];
    const [p] = next.splice(place, 1);
    next.splice(place + by, 0, p!);
    store.go({ panels: next });
  };
  const right = panel.tab === "graph" ? answer?.result?.data.kind === "matrix" : answer?.result?.data.kind === "vector";
  return (
    <section class="panel" aria-label={`Query ${place + 1}`} tabIndex={-1} aria-busy={busy}>
      <div class="query">
        <div class="editor" ref={host} data-invalid={where ? "" : undefined} />
        <button type="button" class="run" onClick={() => editor.current && run(editor.current.text)} data-stale={draft.trim() !== panel.expr ? "" : undefined}>
          Run
        </button>
      </div>
      <div class="bar">
        <div class="choice" role="group" aria-label="Show the answer as">
          {(["graph", "table"] as const).map((tab) => (
            <button type="button" key={tab} aria-pressed={panel.tab === tab} onClick={() => store.setPanel(panel.id, { tab })}>{tab === "graph" ? "Graph" : "Table"}</button>
          ))}
        </div>
        {panel.tab === "graph" ? (
          <>
            <button type="button" class="quiet" aria-pressed={panel.stacked} onClick={() => store.setPanel(panel.id, { stacked: !panel.stacked })}>Stacked</button>
            <label>step <Input value={panel.step ? duration(panel.step).replace(" ", "") : ""} placeholder={duration(step)} label="Step; empty: chosen by the range" size={6} set={(t) => {
              if (!t.trim()) return store.setPanel(panel.id, { step: 0 }), true;
              const ms = parseDuration(t);
              if (ms) store.setPanel(panel.id, { step: ms });
              return ms !== undefined;
            }} /></label>
          </>
        ) : (
          <label>at <Input value={stamp(at, store.zone)} label="Instant of the table" size={21} set={(t) => {
            const ms = t.trim() ? parseTime(t, store.zone) : store.range.to;
            if (ms !== undefined) store.go({ at: ms === store.range.to ? null : ms });
            return ms !== undefined;
          }} /></label>
        )}
        <span class="stats" aria-live="polite">{busy ? "asking…" : right && answer?.result ? stats(answer.result, step) : ""}</span>
        <span class="tools">
          <button type="button" class="icon" aria-label="Move up" title="Move up" disabled={place === 0} onClick={() => move(-1)}><Icon name="up" /></button>
          <button type="button" class="icon" aria-label="Move down" title="Move down" disabled={place === panels.length - 1} onClick={() => move(1)}><Icon name="down" /></button>
          <button type="button" class="icon" aria-label="Duplicate" title="Duplicate" onClick={() => store.go({ panels: [...panels.slice(0, place + 1), { ...panel, id: store.id() }, ...panels.slice(place + 1)] })}><Icon name="copy" /></button>
          <button type="button" class="icon" aria-label="Remove" title="Remove" onClick={() => store.go({ panels: panels.length > 1 ? panels.filter((p) => p !== panel) : [{ ...panel, id: store.id(), expr: "" }] })}><Icon name="close" /></button>
        </span>
      </div>
      <div class={busy ? "answer busy" : "answer"}>
        {!panel.expr ? <Start metrics={metrics} /> : null}
        {answer?.error ? <Failure error={answer.error} expr={answer.of} retry={() => setAgain((n) => n + 1)} /> : null}
        {answer?.result && right ? <Answer result={answer.result} panel={panel} metrics={metrics} /> : null}
      </div>
    </section>
  );
}

const stats = (r: Result, step: number) => {
  const took = r.ms < 1000 ? `${Math.round(r.ms)} ms` : `${(r.ms / 1000).toFixed(1)} s`;
  return r.data.kind === "matrix"
    ? `${plural(r.data.labels.length, "series", "series")} · ${plural(r.data.samples, "point")} · every ${duration(step)} · ${took}`
    : `${r.data.type === "scalar" || r.data.type === "string" ? r.data.type : plural(r.data.cells.length, "series", "series")} · ${took}`;
};

function Answer({ result, panel, metrics }: { result: Result; panel: PanelState; metrics: string[] }) {
  const notes = [...result.warnings.map((w) => ["warning", w] as const), ...result.infos.map((w) => ["info", w] as const)];
  const empty = result.data.kind === "matrix" ? !result.data.labels.length : !result.data.cells.length;
  return (
    <>
      {notes.map(([kind, w]) => (
        <p key={w} class={`note ${kind}`}><b>{kind === "warning" ? "Warning" : "Info"}</b> {w.replace(/^PromQL (info|warning): /, "")}</p>
      ))}
      {empty ? <Nothing expr={panel.expr} metrics={metrics} instant={panel.tab === "table"} /> : result.data.kind === "matrix" ? <Lines m={result.data} panel={panel} /> : <Cells v={result.data} />}
    </>
  );
}

function Lines({ m, panel }: { m: Matrix; panel: PanelState }) {
  const store = useStore();
  const dark = useDark(store);
  const s = useMemo(() => shape(m.labels), [m]);
  const top = useMemo(() => {
    const all = m.labels.map((_, i) => i).filter((i) => m.maxima[i]! >= 0);
    return new Set(all.length > most ? all.sort((a, b) => m.maxima[b]! - m.maxima[a]!).slice(0, most) : all);
  }, [m]);
  const [turned, setTurned] = useState<Set<number>>(new Set()); // other than by default
  const [focus, setFocus] = useState<number | null>(null);
  const [cursor, setCursor] = useState<number | null>(null);
  useEffect(() => setTurned(new Set()), [m.labels.length, panel.expr]);
  const on = (i: number) => top.has(i) !== turned.has(i);
  const drawn = useMemo(() => m.labels.map((_, i) => i).filter(on), [m, top, turned]);
  const toggle = (i: number, only: boolean) => {
    if (only) {
      const alone = drawn.length === 1 && drawn[0] === i;
      setTurned(alone ? new Set() : new Set(m.labels.map((_, k) => k).filter((k) => top.has(k) !== (k === i))));
      return;
    }
    const next = new Set(turned);
    if (!next.delete(i)) next.add(i);
    setTurned(next);
  };
  const value = (i: number) => (cursor === null ? (m.maxima[i]! < 0 ? m.lasts[i]! : short(lastOf(m, i), 5)) : short0(m.values[i * m.points + cursor]!));
  const columns = useMemo<Column[]>(() => [
    { key: "on", title: "", label: "Drawn", chars: 4, cell: (i) => (
      <button type="button" class="swatch" aria-pressed={on(i)} aria-label={`Draw ${text(m.labels[i]!)}`} title="Click: draw or not. With Alt or Ctrl: only this one." style={on(i) ? { background: colour(i, dark), borderColor: colour(i, dark) } : {}}
        onClick={(e) => { e.stopPropagation(); toggle(i, e.altKey || e.ctrlKey || e.metaKey); }} />
    ) },
    { key: "value", title: cursor === null ? "last" : clock(m.from + cursor * m.step, store.zone), chars: 12, right: true, first: "down", cell: (i) => <span class="num">{value(i)}</span>, sort: (i) => (cursor === null ? lastOf(m, i) : m.values[i * m.points + cursor]!) },
    { key: "max", title: "highest", chars: 11, right: true, first: "down", cell: (i) => <span class="num dim">{m.maxima[i]! < 0 ? "" : short(maxOf(m, i), 5)}</span>, sort: (i) => maxOf(m, i) },
    ...labelColumns(m.labels, s),
  ], [m, s, turned, cursor, dark, store.zone]);
  const lines = m.labels.length - m.histograms;
  return (
    <>
      {m.histograms ? (
        <p class="note info">
          <b>{m.histograms === m.labels.length ? "Native histograms" : `${plural(m.histograms, "native histogram")} among them`}</b> {m.histograms === 1 ? "It is" : "They are"} no line. The table shows the buckets, or{" "}
          <button type="button" class="link" onClick={() => store.setPanel(panel.id, { expr: `histogram_quantile(0.9, ${panel.expr})` })}>draw the 90th percentile</button>.
        </p>
      ) : null}
      {lines > top.size ? <p class="note info" data-capped=""><b>Drawn: {count(top.size)} of {count(lines)} series,</b> those with the highest values. The list below has all of them: click one to draw it, or narrow the query, as with <code>topk(20, …)</code>.</p> : null}
      {lines ? (
        <Graph matrix={m} shape={s} drawn={drawn} focus={focus} range={store.range} at={store.place.at} stacked={panel.stacked} zone={store.zone} dark={dark}
          label={`Graph of ${panel.expr}: ${plural(lines, "series", "series")}. Arrow keys move the cursor.`}
          onZoom={(r) => store.setRange(r)} onReset={() => store.setRange(null)} onInstant={(ms) => store.go({ at: ms })} onCursor={setCursor} />
      ) : null}
      <Common s={s} n={m.labels.length} />
      <Table label={`Series of ${panel.expr}`} columns={columns} rows={m.labels.length} max={lines ? 210 : 320} {...(lines > top.size ? { order: { key: "max", down: true } } : {})}
        row={(i) => ({ class: on(i) ? "" : "off", onMouseEnter: () => setFocus(i), onMouseLeave: () => setFocus(null), onClick: (e: MouseEvent) => { if (!getSelection()?.toString()) toggle(i, e.altKey || e.ctrlKey || e.metaKey); } })} />
    </>
  );
}

const briefly = (text: string) => (/^\d+$/.test(text) ? exact(text) : short(Number(text), 6));
const short0 = (v: number) => (Number.isNaN(v) ? "" : short(v, 5));

function lastOf(m: Matrix, i: number): number {
  for (let k = m.points - 1; k >= 0; k--) {
    const v = m.values[i * m.points + k]!;
    if (!Number.isNaN(v)) return v;
  }
  return NaN;
}

function maxOf(m: Matrix, i: number): number {
  let max = -Infinity;
  for (let k = 0; k < m.points; k++) if (m.values[i * m.points + k]! > max) max = m.values[i * m.points + k]!;
  return max === -Infinity ? NaN : max;
}

function Cells({ v }: { v: Vector }) {
  const s = useMemo(() => shape(v.cells.map((c) => c.labels)), [v]);
  const columns = useMemo<Column[]>(() => {
    const cells = v.cells;
    const histograms = cells.some((c) => c.histogram);
    const samples = v.type === "matrix";
    return [
      ...(samples ? [{ key: "n", title: "samples", chars: 10, right: true, first: "down" as const, cell: (i: number) => <span class="num">{count(cells[i]!.value)}</span>, sort: (i: number) => cells[i]!.value }] : []),
      { key: "value", title: "value", chars: samples ? 60 : chars("value", cells.length, (i) => (cells[i]!.histogram ? "count 1,234,567, sum 1.2345k" : exact(cells[i]!.text)), 44), right: !samples, first: "down", sort: (i) => cells[i]!.value,
        cell: (i) => <span class="num" title={cells[i]!.text}>{cells[i]!.histogram ? `count ${briefly(cells[i]!.histogram!.count)}, sum ${briefly(cells[i]!.histogram!.sum)}` : exact(cells[i]!.text)}</span> },
      ...(histograms ? [{ key: "buckets", title: "buckets", chars: 30, cell: (i: number) => (cells[i]!.histogram ? <Buckets h={cells[i]!.histogram!} /> : null) }] : []),
      ...labelColumns(cells.map((c) => c.labels), s),
    ];
  }, [v, s]);
  return (
    <>
      <Common s={s} n={v.cells.length} />
      <Table label="Values" columns={columns} rows={v.cells.length} max={460} />
    </>
  );
}

/** A column for each label that tells series apart; the series as one text where those are too many. */
function labelColumns(all: Labels[], s: Shape): Column[] {
  if (all.length === 1) return [{ key: "series", title: "series", chars: 60, cell: () => <Series ls={all[0]!} /> }];
  if (s.varying.length > 8 || !s.varying.length) return [{ key: "series", title: "series", chars: 100, cell: (i) => <Series ls={all[i]!} />, sort: (i) => text(all[i]!) }];
  return s.varying.map((k) => ({
    key: "label " + k, title: k === "__name__" ? "metric" : k, chars: chars(k, all.length, (i) => all[i]![k] ?? ""),
    cell: (i) => (all[i]![k] === undefined ? <span class="dim">–</span> : <span title={all[i]![k]}>{all[i]![k]}</span>), sort: (i) => all[i]![k] ?? "",
  }));
}

function Series({ ls }: { ls: Labels }) {
  return <span class="mono" title={text(ls)}>{text(ls)}</span>;
}

function Common({ s, n }: { s: Shape; n: number }) {
  if (n < 2 || !s.varying.length || !Object.keys(s.common).length) return null;
  return <p class="common">all of them <span class="mono">{text(s.common)}</span></p>;
}

function Start({ metrics }: { metrics: string[] }) {
  const store = useStore();
  if (!metrics.length) return null;
  const examples = ["up", `topk(10, count by (__name__) ({__name__!=""}))`, ...metrics.filter((m) => m.endsWith("_total")).slice(0, 2).map((m) => `sum(rate(${m}[5m]))`)];
  return (
    <p class="start">
      Nothing asked yet. For a start:
      {examples.filter((e) => e !== "up" || metrics.includes("up")).map((e) => (
        <button type="button" key={e} class="mono" onClick={() => store.query(e)}>{e}</button>
      ))}
    </p>
  );
}

/** Line and column of an error in PromQL, as the server says them. */
export function position(message: string): { line: number; column: number; message: string } | null {
  const found = /^(?:invalid parameter "query": )?(\d+):(\d+): (?:parse error: )?([\s\S]*)$/.exec(message);
  return found ? { line: Number(found[1]), column: Number(found[2]), message: found[3]! } : null;
}

function Failure({ error, expr, retry }: { error: APIError; expr: string; retry(): void }) {
  const at = position(error.message);
  const line = at && expr.split("\n")[at.line - 1];
  const what: Record<string, string> = { bad_data: "Not a query", execution: "The query failed", timeout: "The query took too long", canceled: "The query was stopped", [unreachable]: "No server" };
  return (
    <div class="failure" role="alert">
      <p><b>{what[error.type] ?? "The query failed"}</b> {at ? at.message : error.message}</p>
      {at && line !== undefined && line !== null ? <pre>{line + "\n" + " ".repeat(Math.max(0, at.column - 1)) + "^"}{at.line > 1 ? ` line ${at.line}` : ""}</pre> : null}
      {error.type === unreachable ? <button type="button" onClick={retry}>Ask again</button> : null}
    </div>
  );
}
