// The points of a trend: what the lake answered, what arrived since, and how
// both become the columns that are drawn.
import type { Series } from "./api";

export interface Points {
  t: number[]; // seconds
  mean: (number | null)[];
  min: (number | null)[];
  max: (number | null)[];
  good: boolean[];
  bucket: number; // seconds; 0 for single readings
}

export const none = (): Points => ({ t: [], mean: [], min: [], max: [], good: [], bucket: 0 });

export function fromSeries(s: Series): Points {
  const mean = (s.mode === "raw" ? s.value : s.mean) ?? [];
  // A bucket stands for its middle.
  const shift = (s.bucket_seconds ?? 0) / 2;
  return {
    t: s.t.map((t) => t + shift),
    mean,
    min: s.min ?? mean.map(() => null),
    max: s.max ?? mean.map(() => null),
    good: s.good ?? s.t.map(() => true),
    bucket: s.bucket_seconds ?? 0,
  };
}

/** Adds a reading at the end; what is older than the end comes with the next answer of the lake. */
export function append(p: Points, t: number, value: number | null, good: boolean): boolean {
  if (t <= (p.t.at(-1) ?? -Infinity)) return false;
  p.t.push(t);
  p.mean.push(value);
  p.min.push(null);
  p.max.push(null);
  p.good.push(good);
  return true;
}

export function trim(p: Points, from: number): void {
  const n = p.t.findIndex((t) => t >= from);
  // One point before the window stays, so that its line enters from the left.
  if (n > 1) for (const column of [p.t, p.mean, p.min, p.max, p.good]) column.splice(0, n - 1);
}

type Column = (number | null)[];

/** x, line, upper, lower, held, not good: the columns of the drawing. */
export function columns(p: Points, hold: number, alive: number | null): [number[], Column, Column, Column, Column, Column] {
  const x: number[] = [];
  const line: Column = [];
  const upper: Column = [];
  const lower: Column = [];
  const held: Column = [];
  const bad: Column = [];
  const put = (t: number, v: number | null, hi: number | null, lo: number | null, h: number | null, b: number | null) => {
    x.push(t);
    line.push(v);
    upper.push(hi);
    lower.push(lo);
    held.push(h);
    bad.push(b);
  };
  const gap = Math.max(hold, p.bucket * 1.5);
  const end = p.t.length - 1;
  p.t.forEach((t, i) => {
    const before = p.t[i - 1];
    // Longer than a value counts: the line breaks, for nothing is known of that time.
    if (before !== undefined && t - before > gap) put(before + gap / 2, null, null, null, null, null);
    const v = p.mean[i] ?? null;
    const fine = p.good[i] ?? true;
    const holds = i === end && alive !== null && alive > t;
    put(t, fine ? v : null, p.max[i] ?? null, p.min[i] ?? null, holds ? v : null, fine ? null : v);
  });
  const last = p.t[end];
  if (last !== undefined && alive !== null && alive > last) put(alive, null, null, null, p.mean[end] ?? null, null);
  return [x, line, upper, lower, held, bad];
}
