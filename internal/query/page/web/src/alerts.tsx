// Which alerts would have fired when, as lanes over the range that is looked at.

import { useRef, useState } from "preact/hooks";
import { APIError, type AlertInstance, type AlertRule, type Alerts as AlertGroups } from "./api";
import { plural } from "./format";
import { text } from "./series";
import { Toolbar } from "./explore";
import { useStore, useWidth } from "./state";
import { duration, span, tick, ticks, type Range } from "./time";

type Show = "all" | "firing" | "pending";

export function Alerts() {
  const store = useStore();
  const { alerts } = store;
  if (alerts === "loading") return <main class="alerts"><p class="dim" aria-busy="true">Evaluating the rules over the dump…</p></main>;
  if (alerts instanceof APIError) return <main class="alerts"><div class="failure" role="alert"><p><b>The rules could not be evaluated.</b> {alerts.message}</p></div></main>;
  if (alerts === "none") {
    return (
      <main class="alerts">
        <div class="nothing">
          <p><b>No rules were given.</b> With a file of Prometheus' alerting rules, this view shows which alerts would have fired when:</p>
          <pre>promdump open --rules rules.yaml {store.dumps.dumps[0]?.file ?? store.dumps.dumps[0]?.name ?? "dump.tar.gz"}</pre>
        </div>
      </main>
    );
  }
  return <Board groups={alerts.groups} />;
}

function Board({ groups }: { groups: AlertGroups["groups"] }) {
  const store = useStore();
  const axis = useRef<HTMLDivElement>(null);
  const width = useWidth(axis);
  const [show, setShow] = useState<Show>("all");
  const { range, zone } = store;
  const marks = ticks(range, Math.max(2, Math.floor(width / 84)), zone);
  const rules = groups.flatMap((g) => g.rules.map((r) => ({ group: g.name, rule: r, state: stateOf(r) })));
  const fired = rules.filter((r) => r.state === "firing").length;
  const pended = rules.filter((r) => r.state === "pending").length;
  const rank = { firing: 0, pending: 1, quiet: 2 };
  const shown = rules.filter((r) => show === "all" || r.state === show || (show === "pending" && r.rule.instances.some((i) => i.pending.length))).sort((a, b) => rank[a.state] - rank[b.state] || begin(a.rule) - begin(b.rule));
  return (
    <main class="alerts">
      <Toolbar />
      <div class="bar">
        <span class="summary">
          <b>{fired === 0 ? "No alert" : plural(fired, "alert")} of {plural(rules.length, "rule")}</b> would have fired{pended ? `, ${pended} more ${pended === 1 ? "was" : "were"} pending` : ""}.
        </span>
        <div class="choice" role="group" aria-label="Show">
          {(["all", "firing", "pending"] as const).map((s) => (
            <button type="button" key={s} aria-pressed={show === s} onClick={() => setShow(s)}>{{ all: "All rules", firing: "Firing", pending: "Pending" }[s]}</button>
          ))}
        </div>
        <span class="key"><i class="pending" /> pending <i class="firing" /> firing</span>
      </div>
      <div class="lanes-table">
        <div class="lane head" aria-hidden="true">
          <span />
          <div class="axis" ref={axis}>{marks.at.map((t) => <span key={t} style={{ left: left(t, range) }}>{tick(t, marks.step, zone)}</span>)}</div>
        </div>
        {shown.map(({ group, rule, state }) => (
          <section class={`rule ${state}`} key={group + rule.alert + rule.expr} aria-label={`Alert ${rule.alert}: ${state}`}>
            <div class="rule-head">
              <h3>{rule.alert}</h3>
              <button type="button" class="link mono expr" title="Query this" onClick={() => store.query(rule.expr)}>{rule.expr.replace(/\s+/g, " ")}</button>
              <span class="dim">{forText(rule.for)}{group}</span>
              {state === "quiet" ? <span class="badge">never</span> : null}
            </div>
            {rule.annotations?.["summary"] ?? rule.annotations?.["description"] ? <p class="annotation">{rule.annotations?.["summary"] ?? rule.annotations?.["description"]}</p> : null}
            {[...rule.instances].sort((a, b) => beginOf(a) - beginOf(b) || (text(a.labels) < text(b.labels) ? -1 : 1)).map((i) => (
              <Lane key={text(i.labels)} instance={i} rule={rule} range={range} marks={marks.at} />
            ))}
          </section>
        ))}
        {!shown.length ? <p class="dim">None.</p> : null}
      </div>
    </main>
  );
}

const left = (t: number, r: Range) => `${(((t - r.from) / (r.to - r.from)) * 100).toFixed(4)}%`;
const stateOf = (r: AlertRule): "firing" | "pending" | "quiet" => (r.instances.some((i) => i.firing.length) ? "firing" : r.instances.some((i) => i.pending.length) ? "pending" : "quiet");
const beginOf = (i: AlertInstance) => Math.min(...[...i.firing, ...i.pending].map(([t]) => t), Infinity);
const begin = (r: AlertRule) => Math.min(...r.instances.map(beginOf), Infinity);
const forText = (f: string | number) => (!f || f === "0s" ? "" : `for ${typeof f === "number" ? duration(f * 1000) : f} · `);

function Lane({ instance, rule, range, marks }: { instance: AlertInstance; rule: AlertRule; range: Range; marks: number[] }) {
  const store = useStore();
  // The alert's own labels say nothing that is not in its head.
  const own = Object.fromEntries(Object.entries(instance.labels).filter(([k, v]) => k !== "alertname" && k !== "__name__" && rule.labels?.[k] !== v));
  const spans = [...instance.pending.map((s) => ["pending", s] as const), ...instance.firing.map((s) => ["firing", s] as const)]
    .map(([kind, [from, to]]) => ({ kind, from, to })).filter((s) => s.to >= range.from && s.from <= range.to).sort((a, b) => a.from - b.from);
  const name = text(own);
  return (
    <div class="lane">
      <span class="mono" title={name}>{name}</span>
      <div class="strip">
        {marks.map((t) => <i key={t} style={{ left: left(t, range) }} />)}
        {spans.map((s) => {
          const r = { from: Math.max(s.from, range.from), to: Math.min(s.to, range.to) };
          const told = `${s.kind} ${span(s, store.zone)}, ${duration(s.to - s.from)}`;
          return (
            <button type="button" key={s.kind + s.from} class={s.kind} title={told} aria-label={`${rule.alert} ${name} ${told}: query it there`} style={{ left: left(r.from, range), width: `max(3px, ${(((r.to - r.from) / (range.to - range.from)) * 100).toFixed(4)}%)` }}
              onClick={() => store.setRange({ from: s.from - Math.max(60_000, (s.to - s.from) * 0.5), to: s.to + Math.max(60_000, (s.to - s.from) * 0.5) })} />
          );
        })}
      </div>
    </div>
  );
}
