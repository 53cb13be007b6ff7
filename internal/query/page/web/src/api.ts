// What the server says. Paths are relative, so that the page works behind a
// proxy's prefix too.

export interface Block {
  ulid: string;
  minTime: number;
  maxTime: number;
  series: number;
  samples: number;
  chunks: number;
  bytes: number;
  level: number;
  origin?: string;
}

export interface PlannedBlock {
  ulid: string;
  action: string;
  reason?: string;
}

export interface Manifest {
  tool: string;
  created: string;
  source: { kind: string; name: string };
  selection: { minTime: number; maxTime: number; from?: string; to?: string; matchers?: string[]; head: string; wholeBlocks?: boolean };
  plan?: { blocks?: PlannedBlock[]; head?: { mode: string; bytes: number }; notes?: string[] };
}

export interface Dump {
  name: string;
  file?: string;
  manifest?: Manifest | null; // a data dir has none
  verified: boolean;
  sizeBytes: number;
  blocks: Block[];
  minTime: number;
  maxTime: number;
}

export interface Dumps {
  dumps: Dump[];
  minTime: number;
  maxTime: number;
  version: string;
  rules?: boolean; // whether alerts can be asked for
}

export interface AlertInstance {
  labels: Record<string, string>;
  pending: [number, number][];
  firing: [number, number][];
}

export interface AlertRule {
  alert: string;
  expr: string;
  for: string | number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  instances: AlertInstance[];
}

export interface Alerts {
  groups: { name: string; interval: string | number; rules: AlertRule[] }[];
}

export interface Stat {
  name: string;
  value: number;
}

export interface TSDBStatus {
  headStats: { numSeries: number; numLabelPairs: number; chunkCount: number; minTime: number; maxTime: number };
  seriesCountByMetricName: Stat[];
  labelValueCountByLabelName: Stat[];
  memoryInBytesByLabelName: Stat[];
  seriesCountByLabelValuePair: Stat[];
}

/** What a person calls a dump. */
export const called = (d: Dump) => d.file?.split(/[\\/]/).filter(Boolean).at(-1) ?? d.name;

/** An answer that is an error: Prometheus' own, or none at all. */
export class APIError extends Error {
  constructor(readonly type: string, message: string) {
    super(message);
  }
}

export const unreachable = "unreachable";

/** Asks the server and gives what is under "data", or the whole where there is none. */
export async function get<T>(path: string, params?: [string, string][], signal?: AbortSignal): Promise<T> {
  const query = params?.length ? "?" + new URLSearchParams(params) : "";
  const answer = await ask(path + query, { signal: signal ?? null });
  return ("data" in answer ? answer.data : answer) as T;
}

export interface Answer {
  status?: string;
  data?: unknown;
  errorType?: string;
  error?: string;
  warnings?: string[];
  infos?: string[];
}

export async function ask(url: string, init: RequestInit): Promise<Answer> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (err) {
    if ((err as Error).name === "AbortError") throw err;
    throw new APIError(unreachable, "The server does not answer. Does promdump open still run?");
  }
  const body = await response.text();
  let answer: Answer;
  try {
    answer = JSON.parse(body) as Answer;
  } catch {
    throw new APIError(String(response.status), body.trim().slice(0, 500) || `The server answers ${response.status} and nothing else.`);
  }
  if (!response.ok || answer.status === "error") throw new APIError(answer.errorType ?? String(response.status), answer.error ?? `The server answers ${response.status}.`);
  return answer;
}
