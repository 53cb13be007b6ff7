// The state of the page as the hash of its URL, and back: what can be shared and
// what the back button goes through. A range or a view that is the default is
// left out, so that the plain URL shows the whole dump.

import type { Range } from "./time";

export type View = "overview" | "explore" | "alerts";
export type Tab = "graph" | "table";

export interface Panel {
  id: number; // of this session, not in the URL
  expr: string;
  tab: Tab;
  stacked: boolean;
  step: number; // milliseconds; 0: auto
}

export interface Place {
  view: View;
  range: Range | null; // null: the whole dump
  at: number | null; // the instant of tables; null: the end of the range
  panels: Panel[];
}

const iso = (ms: number) => new Date(ms).toISOString().replace(/\.000Z$/, "Z");

export function encode(p: Place): string {
  const q = new URLSearchParams();
  if (p.range) {
    q.set("from", iso(p.range.from));
    q.set("to", iso(p.range.to));
  }
  if (p.at !== null) q.set("at", iso(p.at));
  // Options follow the query that they belong to.
  for (const panel of p.panels) {
    if (!panel.expr && p.panels.length === 1) continue;
    q.append("q", panel.expr);
    if (panel.tab !== "graph") q.append("show", panel.tab);
    if (panel.stacked) q.append("stacked", "1");
    if (panel.step) q.append("step", String(panel.step / 1000));
  }
  // A hash may hold these as they are, and a person reads it.
  const text = q.toString().replace(/%(3A|2F|28|29|2C|40|3D)/gi, decodeURIComponent);
  return text ? `#${p.view}?${text}` : p.view === "overview" ? "" : `#${p.view}`;
}

export function decode(hash: string, newID: () => number): Place {
  const [head = "", ...rest] = hash.replace(/^#/, "").split("?");
  const view: View = head === "explore" || head === "alerts" ? head : "overview";
  const place: Place = { view, range: null, at: null, panels: [] };
  const time = (text: string) => {
    const ms = Date.parse(text);
    return Number.isFinite(ms) ? ms : undefined;
  };
  let from: number | undefined;
  let to: number | undefined;
  for (const [key, value] of new URLSearchParams(rest.join("?"))) {
    const last = place.panels.at(-1);
    if (key === "from") from = time(value);
    else if (key === "to") to = time(value);
    else if (key === "at") place.at = time(value) ?? null;
    else if (key === "q") place.panels.push({ id: newID(), expr: value, tab: "graph", stacked: false, step: 0 });
    else if (key === "show" && last && value === "table") last.tab = "table";
    else if (key === "stacked" && last) last.stacked = value === "1";
    else if (key === "step" && last && Number(value) > 0) last.step = Math.round(Number(value) * 1000);
  }
  if (from !== undefined && to !== undefined && to > from) place.range = { from, to };
  if (!place.panels.length) place.panels.push({ id: newID(), expr: "", tab: "graph", stacked: false, step: 0 });
  return place;
}
