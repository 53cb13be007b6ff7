// What the page and its worker say to each other.

import type { Labels } from "./series";

export interface RangeRequest {
  kind: "range";
  expr: string;
  from: number;
  to: number;
  step: number;
}

export interface InstantRequest {
  kind: "instant";
  expr: string;
  at: number;
}

export interface Bucket {
  lower: number;
  upper: number;
  count: number;
  bounds: string; // (0.5, 1]
}

export interface Histogram {
  count: string;
  sum: string;
  buckets: Bucket[];
}

/** Series on one grid of times: values[series * points + i] is at from + i * step, NaN where there is none. */
export interface Matrix {
  kind: "matrix";
  labels: Labels[];
  from: number;
  step: number;
  points: number;
  values: Float64Array;
  maxima: Float64Array; // of each series' magnitudes; -1 for one without a number
  lasts: string[]; // each series' last value as the API says it
  samples: number;
  histograms: number; // how many of the series are native histograms
}

export interface Cell {
  labels: Labels;
  value: number; // to sort by
  text: string;
  histogram?: Histogram;
}

export interface Vector {
  kind: "vector";
  type: string; // as the API calls it
  cells: Cell[];
}

export interface Result {
  data: Matrix | Vector;
  warnings: string[];
  infos: string[];
  ms: number; // from the request to the parsed answer
}

export type Request = { id: number } & ((RangeRequest | InstantRequest) | { kind: "abort" });
export type Reply = { id: number } & ({ result: Result } | { type: string; error: string });
