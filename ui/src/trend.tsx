// The trend of one sensor: the lake's answer for the window, then each reading as it arrives.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { ApiError, getSeries, time, valueOf, type Sensor } from "./api";
import { clock, day, moments, number, unit, value } from "./format";
import { Age } from "./parts";
import { exactNow, plantNow, plantSpeed } from "./plant";
import { link, route, windows } from "./route";
import { append, columns, fromSeries, none, trim, type Points } from "./series";
import { linkState, onReading } from "./store";

// The stream brings the newest value alone; the lake is asked again for what lay between. A plant that runs faster than
// the clock on the wall leaves out more, and is asked more often.
function again(span: number): number {
  const speed = plantSpeed.peek();
  if (speed === 0) return 2000;
  return speed <= 2 ? 10_000 : Math.min(10_000, Math.max(1500, (span / speed / 200) * 1000));
}

interface Hover {
  t: number;
  v: number | null;
  lo: number | null;
  hi: number | null;
  bad: boolean;
}

export function Trend({ asset, sensor }: { asset: string; sensor: Sensor }) {
  const span = route.value.window;
  const box = useRef<HTMLDivElement>(null);
  const latest = useRef(sensor);
  latest.current = sensor;
  const [trouble, setTrouble] = useState<string | null>(null);
  const [count, setCount] = useState<number | null>(null);
  const [hover, setHover] = useState<Hover | null>(null);
  const numeric = sensor.kind !== "text";

  useEffect(() => {
    const target = box.current;
    if (!target || !numeric) return;
    const plot = new Plot(target, latest, span, setHover, setCount);
    const abort = new AbortController();
    let [next, asking, fresh] = [0, false, false];
    const ask = async () => {
      if (asking) return;
      [asking, fresh] = [true, false];
      const began = performance.now();
      try {
        const [from, to] = plot.range();
        const s = await getSeries(latest.current.path, from * 1000, to * 1000 + 1, plot.points(), abort.signal);
        plot.take(fromSeries(s));
        setTrouble(null);
      } catch (err) {
        if (abort.signal.aborted) return;
        if (!(err instanceof ApiError)) throw err;
        setTrouble(err.status === 0 ? null : err.message);
      } finally {
        asking = false;
        // A slow answer is asked for less often.
        const now = performance.now();
        next = now + Math.max(again(span), 4 * (now - began));
      }
    };
    void ask();
    const poll = setInterval(() => {
      if (fresh && !document.hidden && linkState.peek() === "live" && performance.now() >= next) void ask();
    }, 500);
    const back = linkState.subscribe((s) => s === "live" && plot.filled && void ask());
    const stop = onReading((r) => {
      if (r.path !== latest.current.path || r.event_time === null) return;
      fresh = true;
      plot.add(Date.parse(r.event_time) / 1000, r.value, r.good !== false);
    });
    const follow = plantNow.subscribe(() => plot.draw());
    return () => {
      abort.abort();
      clearInterval(poll);
      back();
      stop();
      follow();
      plot.destroy();
    };
  }, [sensor.path, span, numeric]);

  return (
    <section class="trend" aria-label={`Trend of ${sensor.sensor}`}>
      <div class="trend-head">
        <h3>{sensor.sensor}</h3>
        <span class="now">
          <b>{value(valueOf(sensor))}</b> <span class="unit">{unit(sensor.unit)}</span>
        </span>
        <Readout hover={hover} unit={unit(sensor.unit)} />
        <span class="grow" />
        <span class="windows" role="group" aria-label="Length of the trend">
          {windows.map((w) => (
            <a key={w.seconds} href={link(asset, sensor.sensor, w.seconds)} aria-current={w.seconds === span ? "true" : undefined}>
              {w.label}
            </a>
          ))}
        </span>
      </div>
      <div class="plot-frame">
        <div ref={box} class="plot" role="img" aria-label={describe(sensor, count)} />
        <Notes sensor={sensor} span={span} asset={asset} count={count} trouble={trouble} numeric={numeric} />
      </div>
    </section>
  );
}

function describe(s: Sensor, count: number | null): string {
  const now = exactNow();
  const at = time(s.event_time);
  const newest = at === null || now === null ? "" : `, newest value ${value(valueOf(s))} ${unit(s.unit)}`;
  return `${s.sensor} over time, ${count ?? 0} points${newest}`;
}

function Readout({ hover, unit: u }: { hover: Hover | null; unit: string }) {
  if (!hover) return null;
  const ms = hover.t * 1000;
  return (
    <span class="readout" title={moments(ms)}>
      {day(ms)} {clock(ms)} UTC{" "}
      <b>{hover.v === null ? "no value" : number(hover.v)}</b> {hover.v !== null && u}
      {hover.bad && " not good"}
      {hover.lo !== null && hover.hi !== null && hover.lo !== hover.hi && ` (${number(hover.lo)} … ${number(hover.hi)})`}
    </span>
  );
}

function Notes(p: { sensor: Sensor; span: number; asset: string; count: number | null; trouble: string | null; numeric: boolean }) {
  const now = plantNow.value;
  const at = time(p.sensor.event_time);
  if (!p.numeric) return <p class="plot-note">This sensor sends text; a trend needs numbers.</p>;
  if (p.trouble) return <p class="plot-note">{p.trouble}</p>;
  if (at === null) return <p class="plot-note">No value yet. The trend begins with the first one.</p>;
  if (now !== null && now - at > p.span * 1000) {
    const wider = windows.find((w) => now - at < w.seconds * 1000);
    return (
      <p class="plot-note plot-note-low">
        Ends at the newest value, measured <Age at={at} /> ago.{" "}
        {wider && <a href={link(p.asset, p.sensor.sensor, wider.seconds)}>Show {wider.label} up to now</a>}
      </p>
    );
  }
  if (p.count === 0) return <p class="plot-note">No value in this window.</p>;
  return null;
}

/** The drawing and the points behind it. */
class Plot {
  filled = false;
  private data: Points = none();
  private chart: uPlot;
  private readonly watch: ResizeObserver;
  private readonly scheme = matchMedia("(prefers-color-scheme: dark)");
  private readonly repaint = () => this.rebuild();
  private frame = 0;

  constructor(
    private readonly target: HTMLElement,
    private readonly sensor: { current: Sensor },
    private readonly span: number,
    private readonly onHover: (h: Hover | null) => void,
    private readonly onCount: (n: number) => void,
  ) {
    this.chart = this.build();
    this.watch = new ResizeObserver(() => this.chart.setSize(this.size()));
    this.watch.observe(target);
    this.scheme.addEventListener("change", this.repaint);
  }

  destroy(): void {
    cancelAnimationFrame(this.frame);
    this.watch.disconnect();
    this.scheme.removeEventListener("change", this.repaint);
    this.chart.destroy();
  }

  /** The window in seconds: up to the plant's present, or to the newest value when that is further back than the window. */
  range(): [number, number] {
    const s = this.sensor.current;
    const newest = (time(s.event_time) ?? 0) / 1000;
    const now = (exactNow() ?? newest * 1000) / 1000;
    const end = newest > 0 && now - newest > this.span ? newest + this.span * 0.02 : now;
    return [end - this.span, Math.max(end, Math.min(newest, now + this.span))];
  }

  points = () => Math.max(300, Math.min(2000, Math.round(this.target.clientWidth)));

  take(p: Points): void {
    const newer = this.data.t.findIndex((t) => t > (p.t.at(-1) ?? -Infinity));
    if (newer >= 0 && this.filled) {
      for (let i = newer; i < this.data.t.length; i++) append(p, this.data.t[i]!, this.data.mean[i] ?? null, this.data.good[i] ?? true);
    }
    this.data = p;
    this.filled = true;
    this.draw();
  }

  add(t: number, v: number | null, good: boolean): void {
    if (append(this.data, t, v, good)) this.draw();
  }

  draw(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const [from, to] = this.range();
      trim(this.data, from);
      this.chart.batch(() => {
        this.chart.setData(this.columns(), false);
        this.chart.setScale("x", { min: from, max: to });
      });
      if (this.filled) this.onCount(this.data.t.length);
    });
  }

  private columns(): uPlot.AlignedData {
    const s = this.sensor.current;
    const alive = time(s.alive_at);
    return columns(this.data, s.max_hold_seconds, alive === null ? null : alive / 1000) as uPlot.AlignedData;
  }

  private size() {
    return { width: Math.max(120, this.target.clientWidth), height: Math.max(100, this.target.clientHeight) };
  }

  private rebuild(): void {
    this.chart.destroy();
    this.chart = this.build();
    this.draw();
  }

  private build(): uPlot {
    const css = getComputedStyle(this.target);
    const colour = (name: string) => css.getPropertyValue(name).trim();
    const font = `12px ${css.fontFamily}`;
    const axis = { stroke: colour("--muted"), font, grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1, size: 4 } };
    const [steps, straight] = [uPlot.paths.stepped!({ align: 1 }), uPlot.paths.linear!()];
    // Means of buckets are no steps, whatever the readings in them are.
    const paths: uPlot.Series.PathBuilder = (...args) =>
      (this.sensor.current.interpolation === "step" && this.data.bucket === 0 ? steps : straight)(...args);
    const quiet = { points: { show: false } };
    const line = colour("--line");
    return new uPlot(
      {
        ...this.size(),
        padding: [10, 14, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: true, auto: false },
          y: { range: (_, lo, hi) => padded(lo, hi) },
        },
        axes: [
          { ...axis, values: (_, splits, __, ___, step) => splits.map((s, i) => tick(s, splits[i - 1], step)), space: 90, size: 40 },
          { ...axis, values: (_, splits) => splits.map((s) => (s === null ? "" : short(s, splits))), size: 62, space: 34 },
        ],
        series: [
          {},
          { stroke: line, width: 1.6, paths, points: { show: (u, i) => sparse(u, i), size: 4, fill: line } },
          { stroke: colour("--band-edge"), width: 0, ...quiet },
          { stroke: colour("--band-edge"), width: 0, ...quiet },
          { stroke: line, width: 1.4, dash: [3, 4], ...quiet },
          { stroke: colour("--bad"), width: 0, paths: () => null, points: { show: true, size: 7, stroke: colour("--bad"), fill: colour("--panel"), width: 1.6 } },
        ],
        bands: [{ series: [2, 3], fill: colour("--band") }],
        hooks: {
          setCursor: [
            (u) => {
              const i = u.cursor.idx;
              if (i === null || i === undefined || (u.cursor.left ?? -1) < 0) return this.onHover(null);
              const at = (n: number) => u.data[n]?.[i] ?? null;
              this.onHover({ t: u.data[0][i]!, v: at(1) ?? at(4) ?? at(5), lo: at(3), hi: at(2), bad: at(5) !== null });
            },
          ],
        },
      },
      this.columns(),
      this.target,
    );
  }
}

const sparse = (u: uPlot, series: number) => {
  const n = u.data[series]?.length ?? 0;
  return n > 0 && u.bbox.width / devicePixelRatio / n > 14;
};

/** A little air above and below; a constant value gets a range of its own size. */
function padded(lo: number | null, hi: number | null): [number, number] {
  if (lo === null || hi === null) return [0, 1];
  const air = hi > lo ? (hi - lo) * 0.08 : Math.max(Math.abs(hi) * 0.02, 1e-6);
  return [lo - air, hi + air];
}

/** Just enough digits to tell neighbouring ticks apart. */
function short(v: number, all: (number | null)[]): string {
  const [a, b] = all;
  const step = a !== null && a !== undefined && b !== null && b !== undefined ? Math.abs(b - a) : Math.abs(v);
  if (Math.abs(v) >= 1e6 || (step > 0 && step < 1e-5)) return v.toExponential(1).replace("-", "−");
  const digits = step > 0 ? Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)) : 2;
  return v.toFixed(digits).replace("-", "−");
}

function tick(s: number, before: number | undefined, step: number): string {
  const ms = s * 1000;
  const hour = clock(ms).slice(0, step < 60 ? 8 : 5);
  if (step >= 86_400) return day(ms);
  return before === undefined || day(before * 1000) !== day(ms) ? `${hour}\n${day(ms)}` : hour;
}
