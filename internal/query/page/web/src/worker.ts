// Asks and parses away from the page: the answer for 10,000 series is some 50 MB
// of JSON, and a page that parses it stands still meanwhile. What comes out is
// one array of numbers, which goes to the page without being copied.

import { APIError, ask, type Answer } from "./api";
import type { Cell, Histogram, InstantRequest, Matrix, RangeRequest, Reply, Request, Result, Vector } from "./messages";
import type { Labels } from "./series";

declare const self: DedicatedWorkerGlobalScope;

type Sample = [number, string];
type RawHistogram = { count: string; sum: string; buckets?: [number, string, string, string][] };
type HistogramSample = [number, RawHistogram];
interface RawSeries {
  metric: Labels;
  values?: Sample[];
  histograms?: HistogramSample[];
  value?: Sample;
  histogram?: HistogramSample;
}
interface RawData {
  resultType: string;
  result: RawSeries[] | Sample;
}

const running = new Map<number, AbortController>();

self.onmessage = async ({ data: request }: MessageEvent<Request>) => {
  const { id } = request;
  if (request.kind === "abort") return running.get(id)?.abort();
  const abort = new AbortController();
  running.set(id, abort);
  try {
    const result = await run(request, abort.signal);
    const transfer = result.data.kind === "matrix" ? [result.data.values.buffer, result.data.maxima.buffer] : [];
    if (!abort.signal.aborted) self.postMessage({ id, result } satisfies Reply, transfer as Transferable[]);
  } catch (err) {
    if (!abort.signal.aborted) self.postMessage({ id, type: err instanceof APIError ? err.type : "page", error: (err as Error).message } satisfies Reply);
  } finally {
    running.delete(id);
  }
};

async function run(r: RangeRequest | InstantRequest, signal: AbortSignal): Promise<Result> {
  const begun = performance.now();
  const seconds = (ms: number) => String(ms / 1000);
  const params = new URLSearchParams({ query: r.expr });
  if (r.kind === "range") {
    params.set("start", seconds(r.from));
    params.set("end", seconds(r.to));
    params.set("step", seconds(r.step));
  } else params.set("time", seconds(r.at));
  // A form, since a query may be longer than a URL. The worker's own address is
  // not the page's.
  const url = new URL(r.kind === "range" ? "../api/v1/query_range" : "../api/v1/query", self.location.href);
  const answer: Answer = await ask(url.href, { method: "POST", body: params, signal });
  const raw = answer.data as RawData;
  const data = r.kind === "range" ? matrix(raw.result as RawSeries[], r) : vector(raw);
  return { data, warnings: answer.warnings ?? [], infos: answer.infos ?? [], ms: performance.now() - begun };
}

function matrix(all: RawSeries[], r: RangeRequest): Matrix {
  const points = Math.floor((r.to - r.from) / r.step) + 1;
  const m: Matrix = {
    kind: "matrix", labels: [], from: r.from, step: r.step, points, values: new Float64Array(all.length * points).fill(NaN),
    maxima: new Float64Array(all.length).fill(-1), lasts: [], samples: 0, histograms: 0,
  };
  all.forEach((s, n) => {
    m.labels.push(s.metric);
    for (const [t, text] of s.values ?? []) {
      const i = Math.round((t * 1000 - r.from) / r.step);
      const v = number(text);
      m.values[n * points + i] = v;
      if (Math.abs(v) > m.maxima[n]! && Number.isFinite(v)) m.maxima[n] = Math.abs(v);
    }
    m.samples += (s.values?.length ?? 0) + (s.histograms?.length ?? 0);
    if (s.histograms?.length) m.histograms++;
    const last = s.histograms?.at(-1)?.[1];
    m.lasts.push(s.values?.at(-1)?.[1] ?? (last ? `count ${last.count}, sum ${last.sum}` : ""));
  });
  return m;
}

function vector(raw: RawData): Vector {
  if (raw.resultType === "scalar" || raw.resultType === "string") {
    const [, text] = raw.result as Sample;
    return { kind: "vector", type: raw.resultType, cells: [{ labels: {}, value: number(text), text }] };
  }
  return { kind: "vector", type: raw.resultType, cells: (raw.result as RawSeries[]).map(cell) };
}

function cell(s: RawSeries): Cell {
  if (s.value) return { labels: s.metric, value: number(s.value[1]), text: s.value[1] };
  if (s.histogram) {
    const histogram = toHistogram(s.histogram[1]);
    return { labels: s.metric, value: number(histogram.count), text: `count ${histogram.count}, sum ${histogram.sum}`, histogram };
  }
  // A range selector: the samples as they are, each with its time.
  const samples = [
    ...(s.values ?? []).map(([t, v]) => [t, v] as const),
    ...(s.histograms ?? []).map(([t, h]) => [t, `count ${h.count}, sum ${h.sum}`] as const),
  ].sort((a, b) => a[0] - b[0]);
  return { labels: s.metric, value: samples.length, text: samples.map(([t, v]) => `${v} @${t}`).join("  ") };
}

const toHistogram = (h: RawHistogram): Histogram => ({
  count: h.count,
  sum: h.sum,
  buckets: (h.buckets ?? []).map(([rule, lower, upper, n]) => ({
    lower: Number(lower), upper: Number(upper), count: Number(n),
    bounds: `${rule === 1 || rule === 3 ? "[" : "("}${lower}, ${upper}${rule === 0 || rule === 3 ? "]" : ")"}`,
  })),
});

const number = (text: string) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));
