// What the dump is, and what is in it.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { APIError, called, get, type Dump, type Manifest, type Stat, type TSDBStatus } from "./api";
import { bytes, count, plural } from "./format";
import { selector, suggestion } from "./series";
import { useStore } from "./state";
import { duration, span, stamp, type Zone } from "./time";

export function Overview({ metrics }: { metrics: string[] }) {
  const store = useStore();
  const { dumps } = store.dumps;
  return (
    <main class="overview">
      <div class={dumps.length > 1 ? "dumps several" : "dumps"}>
        {dumps.map((d) => (
          <Facts key={d.name} dump={d} zone={store.zone} />
        ))}
      </div>
      <Contents metrics={metrics} />
    </main>
  );
}

const sources: Record<string, string> = { local: "data directory", exec: "pod, by an agent", tar: "pod, by tar", debug: "pod, by a debug container", "remote-read": "remote read" };

function Facts({ dump, zone }: { dump: Dump; zone: Zone }) {
  const m = dump.manifest;
  const series = Math.max(0, ...dump.blocks.map((b) => b.series));
  const samples = dump.blocks.reduce((n, b) => n + b.samples, 0);
  const utc = zone === "utc" ? " UTC" : "";
  return (
    <section class="facts" aria-label={`Dump ${called(dump)}`}>
      <h2>
        {called(dump)}
        {dump.verified ? <span class="badge good">✓ verified</span> : <span class="badge">not verified</span>}
      </h2>
      <dl>
        {m ? (
          <>
            <Fact name="From">{m.source.name} <i>{sources[m.source.kind] ?? m.source.kind}</i></Fact>
            <Fact name="Taken">{stamp(Math.floor(Date.parse(m.created) / 1000) * 1000, zone)}{utc}</Fact>
            <Fact name="Asked for">{asked(m, zone)}<i>{duration2(m)}</i></Fact>
            <Fact name="Series asked for">{m.selection.matchers?.length ? m.selection.matchers.map((s) => <code key={s}>{s}</code>) : "all"}</Fact>
          </>
        ) : (
          <Fact name="What">a data directory, not a dump: nothing says where it is from</Fact>
        )}
        <Fact name="Holds">{dump.blocks.length ? <>{span({ from: dump.minTime, to: dump.maxTime }, zone)}{utc} <i>{duration(dump.maxTime - dump.minTime)}</i></> : "no block"}</Fact>
        <Fact name="Contents">{plural(dump.blocks.length, "block")}, {plural(samples, "sample")}{dump.blocks.length === 1 ? `, ${count(series)} series` : <i>up to {plural(series, "series", "series")} a block</i>}</Fact>
        {m ? <Fact name="Of its source">{plan(m)}</Fact> : null}
        <Fact name="Size">{bytes(dump.sizeBytes)}</Fact>
        {m ? <Fact name="Made by">{m.tool}</Fact> : null}
      </dl>
      {m?.plan?.notes?.map((n) => <p key={n} class="note info">{n}</p>)}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

// A selection may be open at either end.
const asked = (m: Manifest, zone: Zone) => {
  const { minTime, maxTime, from, to } = m.selection;
  if (from && to) return `${span({ from: minTime, to: maxTime }, zone)}${zone === "utc" ? " UTC" : ""}`;
  if (from) return `from ${stamp(minTime, zone)}`;
  return to ? `until ${stamp(maxTime, zone)}` : "everything";
};
const duration2 = (m: Manifest) => (m.selection.from && m.selection.to ? ` ${duration(m.selection.maxTime - m.selection.minTime)}` : "") + (m.selection.wholeBlocks ? " in whole blocks" : "");

function plan(m: Manifest): string {
  const blocks = m.plan?.blocks ?? [];
  const n = (action: string) => blocks.filter((b) => b.action === action).length;
  const taken = [n("whole") && `${n("whole")} whole`, n("cut") && `${n("cut")} cut`].filter(Boolean).join(", ");
  const head = { block: "its head as blocks", raw: "its head as files", none: "not its head" }[m.selection.head] ?? `its head: ${m.selection.head}`;
  return blocks.length ? `${taken || "none"} of ${plural(blocks.length, "block")}, and ${head}` : head;
}

function Contents({ metrics }: { metrics: string[] }) {
  const store = useStore();
  const [status, setStatus] = useState<TSDBStatus | null>(null);
  const [error, setError] = useState("");
  const [limit, setLimit] = useState(15);
  const [filter, setFilter] = useState("");
  useEffect(() => {
    get<TSDBStatus>("api/v1/status/tsdb", [["limit", "1000"]]).then(setStatus, (e: APIError) => setError(e.message));
  }, [store]);
  if (error) return <p class="note warning"><b>What is in the dump could not be read:</b> {error}</p>;
  if (!status) return <p class="dim" aria-busy="true">Counting series…</p>;

  const known = new Map(status.seriesCountByMetricName.map((s) => [s.name, s.value]));
  const wanted = filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const all: Stat[] = [...status.seriesCountByMetricName, ...metrics.filter((m) => !known.has(m)).map((name) => ({ name, value: -1 }))];
  const found = all.filter((s) => wanted.every((w) => s.name.toLowerCase().includes(w)));
  return (
    <div class="contents">
      <section class="metrics" aria-label="Metrics">
        <header>
          <h2>Metrics <i>{count(Math.max(metrics.length, known.size))}, by series</i></h2>
          <input type="search" placeholder="Find a metric" aria-label="Find a metric" value={filter} onInput={(e) => { setFilter(e.currentTarget.value); setLimit(15); }}
            onKeyDown={(e) => { if (e.key === "Escape") setFilter(""); if (e.key === "Enter" && found[0]) store.query(selector(found[0].name)); }} />
        </header>
        <Bars stats={found.slice(0, limit)} max={status.seriesCountByMetricName[0]?.value ?? 1} what="series" pick={(n) => store.query(selector(n))} more={suggestion} />
        {!found.length ? <p class="dim">No metric has “{filter}” in its name.</p> : null}
        {found.length > limit ? <button type="button" class="link" onClick={() => setLimit(limit + 50)}>Show {count(Math.min(50, found.length - limit))} more of {count(found.length - limit)}</button> : null}
      </section>
      <section aria-label="Labels">
        <header><h2>Labels <i>by number of values</i></h2></header>
        <Bars stats={status.labelValueCountByLabelName.filter((s) => s.name !== "__name__").slice(0, 10)} max={Math.max(1, ...status.labelValueCountByLabelName.filter((s) => s.name !== "__name__").map((s) => s.value))} what="values"
          pick={(n) => store.query(`topk(20, count by (${n}) ({${n}!=""}))`)} />
        <header><h2>Pairs <i>by series</i></h2></header>
        <Bars stats={status.seriesCountByLabelValuePair.filter((s) => !s.name.startsWith("__name__=")).slice(0, 10)} max={Math.max(1, ...status.seriesCountByLabelValuePair.filter((s) => !s.name.startsWith("__name__=")).map((s) => s.value))} what="series"
          pick={(n) => { const i = n.indexOf("="); store.query(`topk(20, count by (__name__) ({${n.slice(0, i)}=${JSON.stringify(n.slice(i + 1))}}))`); }} />
      </section>
    </div>
  );
}

function Bars({ stats, max, what, pick, more }: { stats: Stat[]; max: number; what: string; pick(name: string): void; more?(name: string): { what: string; expr: string } | undefined }) {
  const store = useStore();
  return (
    <ol class="bars">
      {stats.map((s) => {
        const extra = more?.(s.name);
        return (
          <li key={s.name}>
            <span class="bar-fill" aria-hidden="true" style={{ width: `${((Math.max(0, s.value) / max) * 100).toFixed(2)}%` }} />
            <button type="button" class="name mono" title={`Query ${s.name}`} onClick={() => pick(s.name)}>{s.name}</button>
            {extra ? <button type="button" class="extra" title={extra.expr} aria-label={`${extra.what} of ${s.name}`} onClick={() => store.query(extra.expr)}>{extra.what}</button> : null}
            <span class="num" title={what}>{s.value < 0 ? "" : count(s.value)}</span>
          </li>
        );
      })}
    </ol>
  );
}
