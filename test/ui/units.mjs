// The page's pure functions: how values and ages are written, and how points become a drawing.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

const require = createRequire(new URL("../../ui/package.json", import.meta.url));
const { runnerImport } = await import(pathToFileURL(require.resolve("vite")));
const root = fileURLToPath(new URL("../../ui/", import.meta.url));
const load = async (name) => (await runnerImport(`${root}src/${name}`, { root, logLevel: "error", configFile: false })).module;

const f = await load("format.ts");
const plain = (s) => s.replace(/[\u00a0\u202f]/g, " ").replaceAll("−", "-");
const table = (what, fn, cases) => {
  for (const [input, want] of cases) assert.equal(plain(fn(input)), want, `${what}(${input})`);
  console.log(`ok   ${what}: ${cases.length} cases`);
};

table("number", f.number, [
  [0, "0"], [-0, "0"], [1, "1"], [-7, "-7"], [1.33021, "1.330"], [0.0267213, "0.02672"], [0.00012, "1.20e-4"],
  [228.44, "228.4"], [1234.56, "1235"], [9999.6, "10 000"], [12345, "12 345"], [-1234567.8, "-1 234 568"], [2.5e9, "2.50e+9"], [NaN, "NaN"],
]);
table("count", f.count, [[0, "0"], [9999, "9999"], [10_000, "10.0 k"], [939_123, "939 k"], [999_999, "1.00 M"], [1_240_311, "1.24 M"], [5e9, "5.00 G"]]);
table("rate", f.rate, [[0, "0 /s"], [0.02, "<0.1 /s"], [2.34, "2.3 /s"], [155.2, "155 /s"], [12_345, "12.3 k /s"]]);
table("age", f.age, [
  [0, "0 s"], [999, "0 s"], [59_999, "59 s"], [60_000, "1 min 00 s"], [245_000, "4 min 05 s"], [3_600_000, "1 h 00 min"],
  [11_520_000, "3 h 12 min"], [90_000_000, "1 d 1 h"], [8_640_000_000, "100 d"], [-5000, "5 s ahead"],
]);
table("value", f.value, [[null, "no value"], [true, "true"], ["automatic", "automatic"], [2, "2"]]);
table("unit", f.unit, [["Cel", "°C"], ["A", "A"], ["", ""], ["m/s2", "m/s²"]]);

const s = await load("series.ts");
const raw = (t, value, good = t.map(() => true)) => s.fromSeries({ mode: "raw", count: t.length, t, value, good });

let p = raw([1, 2, 3], [10, 11, 12]);
assert.equal(s.append(p, 3, 99, true), false, "what is not newer waits for the lake");
assert.equal(s.append(p, 4, 13, true), true);
assert.deepEqual(p.mean, [10, 11, 12, 13]);
s.trim(p, 3);
assert.deepEqual(p.t, [2, 3, 4], "one point before the window stays");

let [x, line, , , held, bad] = s.columns(raw([0, 1, 100], [5, 6, 7]), 10, 105);
assert.deepEqual(line, [5, 6, null, 7, null], "a gap longer than a value holds breaks the line");
assert.deepEqual(x, [0, 1, 6, 100, 105]);
assert.deepEqual(held, [null, null, null, 7, 7], "a value that still holds goes on to its last sign of life");
[, line, , , , bad] = s.columns(raw([0, 1, 2], [5, 6, 7], [true, false, true]), 10, 2);
assert.deepEqual([line, bad], [[5, null, 7], [null, 6, null]], "a value that is not good is apart");
p = s.fromSeries({ mode: "buckets", count: 2, t: [0, 60], mean: [1, 2], min: [0, 1], max: [2, 3], bucket_seconds: 60 });
assert.deepEqual([p.t, p.bucket], [[30, 90], 60], "a bucket stands for its middle");
[x, line] = s.columns(p, 10, null);
assert.deepEqual(line, [1, 2], "neighbouring buckets are joined, however short a value holds");
[x, line, , , held] = s.columns(s.none(), 10, 5);
assert.deepEqual([x, line, held], [[], [], []]);
console.log("ok   series");
process.exit(0);
