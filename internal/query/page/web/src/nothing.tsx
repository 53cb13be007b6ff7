// An empty answer, which should tell why it may be empty.

import { mentioned, nearest, selector } from "./series";
import { useStore } from "./state";
import { span, stamp } from "./time";

export function Nothing({ expr, metrics, instant }: { expr: string; metrics: string[]; instant: boolean }) {
  const store = useStore();
  const { whole, zone } = store;
  const known = new Set(metrics);
  const unknown = metrics.length ? mentioned(expr).filter((m) => !known.has(m)) : [];
  const part = store.place.range !== null || store.place.at !== null;
  return (
    <div class="nothing" role="status">
      <p>
        <b>No series</b> {instant ? `at ${stamp(store.at, zone)}` : span(store.range, zone)}. The dump holds {span(whole, zone)}
        {zone === "utc" ? " UTC" : ""}.
      </p>
      {unknown.map((m) => {
        const near = nearest(m, metrics);
        return (
          <p key={m}>
            No metric of this dump is named <code>{m}</code>.{near ? <> Its nearest is <button type="button" class="link mono" onClick={() => {
              const panel = store.place.panels.find((p) => p.expr === expr);
              if (panel) store.setPanel(panel.id, { expr: expr.replace(new RegExp(`(?<![\\w:])${m}(?![\\w:])`, "g"), selector(near)) });
            }}>{near}</button>.</> : null}
          </p>
        );
      })}
      {!unknown.length && part ? <p><button type="button" class="link" onClick={() => store.go({ range: null, at: null })}>Look at the whole dump</button></p> : null}
    </div>
  );
}
