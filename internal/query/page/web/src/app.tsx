// The frame of the page, and its keys.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Alerts } from "./alerts";
import { called, get } from "./api";
import { Explore } from "./explore";
import { plural } from "./format";
import { Icon } from "./icons";
import { Overview } from "./overview";
import { Focus, useDark, useStore } from "./state";
import { Timeline } from "./timeline";
import { within } from "./time";
import type { View } from "./url";

const views: [View, string][] = [["overview", "Dump"], ["explore", "Explore"], ["alerts", "Alerts"]];

export function App() {
  const store = useStore();
  const dark = useDark(store);
  const help = useRef<HTMLDialogElement>(null);
  const focus = useRef(new Focus());
  const [metrics, setMetrics] = useState<string[]>([]);
  const { view } = store.place;
  const { dumps } = store.dumps;
  const title = dumps.length === 1 ? called(dumps[0]!) : plural(dumps.length, "dump");

  useEffect(() => {
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
  }, [dark]);
  useEffect(() => {
    document.title = `${title} · promdump`;
    const { from, to } = store.whole;
    get<string[]>("api/v1/label/__name__/values", [["start", String(from / 1000)], ["end", String(to / 1000)]]).then(setMetrics, () => setMetrics([]));
  }, [store]);

  const query = () => {
    if (store.place.view !== "explore") store.go({ view: "explore" });
    focus.current.on(store.place.panels[0]!.id);
  };
  useLayoutEffect(() => {
    const keys = (e: KeyboardEvent) => {
      const target = e.composedPath()[0] as HTMLElement;
      if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || help.current?.open || target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      const { range, whole } = store;
      const length = range.to - range.from;
      const scale = (by: number) => store.setRange({ from: (range.from + range.to - length * by) / 2, to: (range.from + range.to + length * by) / 2 });
      const shift = (by: number) => store.setRange(within({ from: range.from + by * length, to: range.to + by * length }, whole));
      const does: Record<string, () => void> = {
        "/": query, "?": () => help.current?.showModal(), "1": () => store.go({ view: "overview" }), "2": () => store.go({ view: "explore" }), "3": () => store.go({ view: "alerts" }),
        "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), "0": () => store.setRange(null), ",": () => shift(-0.5), ".": () => shift(0.5),
        t: () => store.setTheme(dark ? "light" : "dark"), u: () => store.setZone(store.zone === "utc" ? "local" : "utc"),
      };
      if (!does[e.key]) return;
      e.preventDefault();
      does[e.key]!();
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, [store, dark]);

  const firing = typeof store.alerts === "string" || store.alerts instanceof Error ? 0 : store.alerts.groups.flatMap((g) => g.rules).filter((r) => r.instances.some((i) => i.firing.length)).length;
  return (
    <>
      <header class="top">
        <a class="mark" href="#" aria-label="promdump: the dump" onClick={(e) => { e.preventDefault(); store.go({ view: "overview" }); }}>
          <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><path class="frame" d="M6.2 2.5h-4v15h4M13.8 2.5h4v15h-4" /><path class="bars" d="M6 14v-3M10 14V6M14 14V9" /></svg>
          promdump
        </a>
        <h1 title={dumps.map((d) => d.file ?? d.name).join("\n")}>{title}</h1>
        {(view !== "overview" || dumps.length > 1) && dumps.length && dumps.every((d) => d.verified) ? <span class="badge good">✓ verified</span> : null}
        <nav aria-label="Views">
          {views.map(([v, name]) => (
            <a key={v} href={`#${v}`} aria-current={view === v ? "page" : undefined} onClick={(e) => { e.preventDefault(); store.go({ view: v }); }}>
              {name}
              {v === "alerts" && firing ? <span class="count" aria-label={`${firing} fired`}>{firing}</span> : null}
            </a>
          ))}
        </nav>
        <div class="choice" role="group" aria-label="Times in">
          <button type="button" aria-pressed={store.zone === "utc"} onClick={() => store.setZone("utc")}>UTC</button>
          <button type="button" aria-pressed={store.zone === "local"} onClick={() => store.setZone("local")} title={Intl.DateTimeFormat().resolvedOptions().timeZone}>Local</button>
        </div>
        <button type="button" class="icon" aria-label={dark ? "Light theme" : "Dark theme"} title={(dark ? "Light theme" : "Dark theme") + "  t"} onClick={() => store.setTheme(dark ? "light" : "dark")}><Icon name={dark ? "sun" : "moon"} /></button>
        <button type="button" class="icon" aria-label="Keys" title="Keys  ?" onClick={() => help.current?.showModal()}><Icon name="help" /></button>
      </header>
      <Timeline open={view === "overview"} />
      {view === "overview" ? <Overview metrics={metrics} /> : view === "alerts" ? <Alerts /> : <Explore metrics={metrics} focus={focus.current} />}
      <footer>promdump {store.dumps.version.replace(/^promdump /, "")} · Prometheus' HTTP API is at <code>{new URL("api/v1", location.href).href}</code> · <a href="licenses.txt">licences</a></footer>
      <dialog ref={help} aria-label="Keys" onClick={(e) => { if (e.target === e.currentTarget) e.currentTarget.close(); }}>
        <div class="keys">
          <h2>Keys</h2>
          <dl>
            {[["/", "write a query"], ["Enter", "run it; Shift-Enter: a new line"], ["Ctrl-Space", "complete"], ["Esc", "leave the query, undo a field, stop a drag"], ["1 2 3", "dump, explore, alerts"], ["+ −", "zoom in, out"], [", .", "earlier, later"],
              ["0", "the whole dump"], ["← →", "on a graph: move the cursor, Enter keeps the instant; on the range's handles: move them"], ["u", "UTC or local time"], ["t", "light or dark"], ["?", "this list"]].map(([key, what]) => (
              <div key={key}><dt>{key!.split(" ").map((k) => <kbd key={k}>{k}</kbd>)}</dt><dd>{what}</dd></div>
            ))}
          </dl>
          <p class="dim">In a graph: drag to zoom, double-click for the whole dump, click to set the instant that tables show.</p>
          <form method="dialog"><button type="submit">Close</button></form>
        </div>
      </dialog>
    </>
  );
}
