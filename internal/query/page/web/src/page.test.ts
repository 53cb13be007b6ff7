import assert from "node:assert/strict";
import { test } from "node:test";
import { gaps, pack } from "./lanes";
import { mentioned, nearest, shape, short, suggestion, text } from "./series";
import { short as si } from "./format";
import { autoStep, duration, parseDuration, parseTime, span, ticks, within } from "./time";
import { decode, encode, type Place } from "./url";

const ids = () => {
  let n = 0;
  return () => ++n;
};

test("a place survives its URL", () => {
  const place: Place = {
    view: "explore",
    range: { from: 1795557600000, to: 1795560000123 },
    at: 1795558000000,
    panels: [
      { id: 1, expr: 'sum by (a) (rate(x_total{b=~"c&d#|100%+", e="ü 😀"}[5m])) > 1\n# two lines', tab: "graph", stacked: true, step: 30_000 },
      { id: 2, expr: "", tab: "graph", stacked: false, step: 0 },
      { id: 3, expr: "up", tab: "table", stacked: false, step: 500 },
    ],
  };
  assert.deepEqual(decode(encode(place), ids()), place);
  // As a browser gives it back.
  assert.deepEqual(decode(new URL("http://localhost/" + encode(place)).hash, ids()), place);
});

test("the plain URL is the whole dump", () => {
  const place = decode("", ids());
  assert.deepEqual(place, { view: "overview", range: null, at: null, panels: [{ id: 1, expr: "", tab: "graph", stacked: false, step: 0 }] });
  assert.equal(encode(place), "");
  assert.equal(encode({ ...place, view: "alerts" }), "#alerts");
});

test("a URL that somebody mangled shows something", () => {
  for (const hash of ["#explore?from=x&to=y", "#nowhere?q=up&step=-1&show=pie", "#explore?show=table", "#explore?from=2026-01-02&to=2026-01-01", "#??&&=", "#explore?q=%E0%A4%A"]) {
    const place = decode(hash, ids());
    assert.equal(place.range, null, hash);
    assert.ok(place.panels.length > 0, hash);
  }
});

test("times are read as the command line reads them", () => {
  const want = Date.UTC(2021, 3, 1, 10, 0, 0);
  for (const s of ["2021-04-01 10:00:00", "2021-04-01 10:00", "2021-04-01T10:00:00Z", "2021-04-01T12:00:00+02:00", "1617271200", "1617271200000", " 2021-04-01 10:00:00.000 UTC "]) assert.equal(parseTime(s, "utc"), want, s);
  for (const s of ["", "yesterday", "2021-13-01", "2021-04-01 25:00", "10:00"]) assert.equal(parseTime(s, "utc"), undefined, s);
  assert.equal(span({ from: want, to: want + 90_061_000 }, "utc"), "2021-04-01 10:00:00 – 2021-04-02 11:01:01");
  assert.deepEqual([duration(5_400_000), duration(0), duration(90_061_000), parseDuration("1m30s"), parseDuration("0.5"), parseDuration("x")], ["1h 30m", "0s", "1d 1h", 90_000, 500, undefined]);
});

test("ranges stay within the dump", () => {
  const whole = { from: 0, to: 1000 };
  assert.deepEqual(within({ from: -100, to: 200 }, whole), { from: 0, to: 300 });
  assert.deepEqual(within({ from: 900, to: 1400 }, whole), { from: 500, to: 1000 });
  assert.deepEqual(within({ from: -500, to: 5000 }, whole), whole);
  assert.equal(autoStep({ from: 0, to: 6 * 3_600_000 }), 120_000);
  assert.equal(autoStep({ from: 0, to: 10_000 }), 1000);
  const t = ticks({ from: Date.UTC(2026, 0, 1, 0, 7), to: Date.UTC(2026, 0, 1, 6) }, 10, "utc");
  assert.ok(t.at.length <= 10 && t.at.every((x) => x % t.step === 0));
});

test("blocks that overlap are in lanes of their own", () => {
  const b = (minTime: number, maxTime: number) => ({ minTime, maxTime });
  const { lanes, placed } = pack([b(20, 30), b(0, 10), b(10, 20), b(5, 12), b(6, 7)]);
  assert.equal(lanes, 3);
  for (const x of placed) for (const y of placed) if (x !== y && x.lane === y.lane) assert.ok(x.item.maxTime <= y.item.minTime || y.item.maxTime <= x.item.minTime);
  assert.deepEqual(gaps([b(10, 20), b(15, 40), b(60, 95)], { from: 0, to: 100 }, 6), [{ from: 0, to: 10 }, { from: 40, to: 60 }]);
});

test("names of series", () => {
  const all = [{ __name__: "x", job: "a", pod: "p-1" }, { __name__: "x", job: "a", pod: "p-2" }, { __name__: "x", job: "a" }];
  const s = shape(all);
  assert.deepEqual(s, { common: { __name__: "x", job: "a" }, varying: ["pod"] });
  assert.equal(short(all[1]!, s), '{pod="p-2"}');
  assert.equal(text({ __name__: "x y", "a.b": 'q"' }), '{"x y", "a.b"="q\\""}');
  assert.equal(text({}), "{}");
  assert.equal(suggestion("http_requests_total")!.expr, "rate(http_requests_total[5m])");
  assert.equal(nearest("http_request_total", ["up", "http_requests_total", "http_errors_total"]), "http_requests_total");
  assert.equal(nearest("nothing_like_it", ["up"]), undefined);
});

test("what a query mentions", () => {
  assert.deepEqual(mentioned('sum by (pod) (rate(a_total{x="b"}[5m])) / on (le) group_left b:c offset 5m > 1e3 and "d" * 0x1f'), ["a_total", "b:c"]);
});

test("short numbers", () => {
  assert.deepEqual([0, 1, 999.96, 1234, 180_000_000, 0.00025, -1500, Infinity, NaN, 1e-12].map((v) => si(v)), ["0", "1", "1k", "1.234k", "180M", "250µ", "-1.5k", "+Inf", "NaN", "1.00e-12"]);
});
