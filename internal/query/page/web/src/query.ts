// The page's side of the worker.

import { APIError } from "./api";
import type { InstantRequest, RangeRequest, Reply, Request, Result } from "./messages";

declare const WORKER_URL: string;

// The page's policy lets a script's address come from nowhere else. Browsers that
// do not know Trusted Types take the text.
const types = (globalThis as { trustedTypes?: { createPolicy(name: string, rules: object): { createScriptURL(s: string): string } } }).trustedTypes;
const address = types ? types.createPolicy("promdump", { createScriptURL: () => WORKER_URL }).createScriptURL("") : WORKER_URL;

export class Querier {
  private readonly worker = new Worker(address, { type: "module" });
  private readonly waiting = new Map<number, { resolve: (r: Result) => void; reject: (e: Error) => void }>();
  private next = 1;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      const w = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (!w) return;
      if ("result" in data) w.resolve(data.result);
      else w.reject(new APIError(data.type, data.error));
    };
  }

  /** What is aborted is never answered. */
  run(request: RangeRequest | InstantRequest, signal: AbortSignal): Promise<Result> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      signal.addEventListener("abort", () => {
        if (this.waiting.delete(id)) this.worker.postMessage({ id, kind: "abort" } satisfies Request);
      });
      this.worker.postMessage({ id, ...request } satisfies Request);
    });
  }
}
