// Where the page is, and how it goes elsewhere: each step is a URL.

import { createContext } from "preact";
import { useContext, useEffect, useLayoutEffect, useState } from "preact/hooks";
import { APIError, get, type Alerts, type Dumps } from "./api";
import { Querier } from "./query";
import { decode, encode, type Panel, type Place } from "./url";
import { niceStep, within, type Range, type Zone } from "./time";

export type Theme = "auto" | "light" | "dark";

export class Store {
  place: Place;
  zone: Zone;
  theme: Theme;
  readonly querier = new Querier();
  readonly whole: Range;
  readonly interval: number; // a step below it shows nothing more
  alerts: Alerts | "loading" | "none" | APIError = "loading";
  private readonly listeners = new Set<() => void>();
  private nextID = 1;

  constructor(readonly dumps: Dumps) {
    // A dump without a sample still has a page.
    this.whole = dumps.maxTime > dumps.minTime ? { from: dumps.minTime, to: dumps.maxTime } : { from: dumps.minTime, to: dumps.minTime + 60_000 };
    // Series that come and go make a block look as if it were scraped more rarely.
    const intervals = dumps.dumps.flatMap((d) => d.blocks).filter((b) => b.samples > 2 * b.series).map((b) => ((b.maxTime - b.minTime) * b.series) / b.samples);
    this.interval = intervals.length ? niceStep(Math.min(15_000, ...intervals.map((i) => i * 0.8)), 1) : 1000;
    this.zone = remembered("zone") === "local" ? "local" : "utc";
    const theme = remembered("theme");
    this.theme = theme === "light" || theme === "dark" ? theme : "auto";
    this.place = decode(location.hash, this.id);
    addEventListener("popstate", this.follow);
    addEventListener("hashchange", this.follow);
    void this.evaluate();
  }

  /** Rules may take the server a while: nothing waits for them. */
  private async evaluate(): Promise<void> {
    try {
      this.alerts = this.dumps.rules === false ? "none" : await get<Alerts>("api/promdump/v1/alerts");
    } catch (e) {
      const error = e as APIError;
      this.alerts = error.type === "404" || error.type === "not_found" ? "none" : error;
    }
    this.emit();
  }

  readonly id = () => this.nextID++;

  get range(): Range {
    return this.place.range ?? this.whole;
  }

  get at(): number {
    return this.place.at ?? this.range.to;
  }

  subscribe(f: () => void): () => void {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  }

  go(change: Partial<Place>, how: "push" | "replace" = "push"): void {
    this.place = { ...this.place, ...change };
    const hash = encode(this.place);
    if (hash !== location.hash) history[how === "push" ? "pushState" : "replaceState"](null, "", hash || location.pathname + location.search);
    this.emit();
  }

  setRange(r: Range | null, how: "push" | "replace" = "push"): void {
    if (r) {
      r = within({ from: Math.round(r.from), to: Math.round(Math.max(r.to, r.from + 1000)) }, this.whole);
      if (r.from <= this.whole.from && r.to >= this.whole.to) r = null;
    }
    const next = r ?? this.whole;
    const at = this.place.at;
    this.go({ range: r, at: at !== null && (at < next.from || at > next.to) ? null : at }, how);
  }

  setPanel(id: number, change: Partial<Panel>): void {
    this.go({ panels: this.place.panels.map((p) => (p.id === id ? { ...p, ...change } : p)) });
  }

  /** Shows a query: in the first empty panel, or one more. */
  query(expr: string): void {
    const panels = this.place.panels;
    const empty = panels.find((p) => !p.expr);
    this.go({
      view: "explore",
      panels: empty ? panels.map((p) => (p === empty ? { ...p, expr } : p)) : [{ id: this.id(), expr, tab: "graph", stacked: false, step: 0 }, ...panels],
    });
  }

  setZone(zone: Zone): void {
    this.zone = zone;
    remember("zone", zone);
    this.emit();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    remember("theme", theme);
    this.emit();
  }

  private emit(): void {
    for (const f of this.listeners) f();
  }

  private readonly follow = () => {
    const place = decode(location.hash, this.id);
    if (encode(place) === encode(this.place)) return;
    // The same panels stay the same, with their cursors and answers.
    place.panels.forEach((p, i) => (p.id = this.place.panels[i]?.id ?? p.id));
    this.place = place;
    this.emit();
  };
}

// A browser may refuse to remember.
function remembered(key: string): string | null {
  try {
    return localStorage.getItem("promdump." + key);
  } catch {
    return null;
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem("promdump." + key, value);
  } catch {
    // then not
  }
}

/** Brings the cursor into a panel's editor, now or as soon as it is there. */
export class Focus {
  private readonly editors = new Map<number, () => void>();
  private wanted: number | null = null;

  on(id: number): void {
    const focus = this.editors.get(id);
    this.wanted = focus ? null : id;
    focus?.();
  }

  set(id: number, focus: (() => void) | null): void {
    if (!focus) return void this.editors.delete(id);
    this.editors.set(id, focus);
    if (this.wanted === id) this.on(id);
  }
}

export const StoreContext = createContext<Store>(undefined as unknown as Store);

/** The store, and a new rendering whenever it changes. */
export function useStore(): Store {
  const store = useContext(StoreContext);
  const [, render] = useState(0);
  useLayoutEffect(() => store.subscribe(() => render((n) => n + 1)), [store]); // a key can come before the paint
  return store;
}

/** The size of an element, as it changes. */
export function useWidth(ref: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const el = ref.current;
    if (!el) return;
    const observer = new ResizeObserver(() => setWidth(el.clientWidth));
    observer.observe(el);
    setWidth(el.clientWidth);
    return () => observer.disconnect();
  }, []);
  return width;
}

/** The theme that is shown, as it changes. */
export function useDark(store: Store): boolean {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const [system, setSystem] = useState(media.matches);
  useEffect(() => {
    const f = () => setSystem(media.matches);
    media.addEventListener("change", f);
    return () => media.removeEventListener("change", f);
  }, []);
  return store.theme === "auto" ? system : store.theme === "dark";
}
