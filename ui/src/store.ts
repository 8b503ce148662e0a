// The state of the page: what the server last said, and how sure we are of it.
import { batch, computed, effect, signal } from "@preact/signals";
import {
  ApiError, getAsset, getAssets, getStatus, getUnclaimed, time,
  type Asset, type AssetDetail, type Reading, type Sensor, type ServerStatus, type Station, type Unclaimed,
} from "./api";
import { setClock } from "./plant";
import { route } from "./route";

export type Link = "connecting" | "live" | "lost";

export const linkState = signal<Link>("connecting");
/** Wall time (performance.now) of the last word over the stream. */
export const heardAt = signal<number | null>(null);

export const assets = signal<Asset[] | null>(null);
export const unclaimed = signal<Unclaimed[]>([]);
export const status = signal<ServerStatus | null>(null);
export const detail = signal<AssetDetail | null>(null);
export const detailError = signal<ApiError | null>(null);

export interface Snapshot {
  at: number; // performance.now
  stations: Station[];
}
/** Newest snapshot of the counters first; enough of them for a steady rate. */
export const snapshots = signal<Snapshot[]>([]);
const snapshotsKept = 6;

/** The newest reading of each path, and of each asset its newest time. Plain maps: one signal tells of their change. */
export const readings = new Map<string, Reading>();
export const newest = new Map<string, number>();
export const readingsChanged = signal(0);

type Listener = (r: Reading) => void;
const listeners = new Set<Listener>();

/** Calls fn for each reading as it arrives; returns how to stop. */
export function onReading(fn: Listener): () => void {
  listeners.add(fn);
  return () => listeners.delete(fn);
}

let frame = 0;
function tell(): void {
  frame ||= setTimeout(() => {
    frame = 0;
    readingsChanged.value += 1;
  }, 100) as unknown as number;
}

export function takeReading(r: Reading): void {
  readings.set(r.path, r);
  const asset = r.path.slice(0, r.path.lastIndexOf("/"));
  const at = time(r.event_time);
  if (at !== null && at > (newest.get(asset) ?? -Infinity)) newest.set(asset, at);
  for (const fn of listeners) fn(r);
  tell();
}

/** A sensor as registered, with the newest reading that arrived since. */
export function current(s: Sensor): Sensor {
  const r = readings.get(s.path);
  if (!r) return s;
  const [old, fresh] = [time(s.event_time) ?? -Infinity, time(r.event_time) ?? -Infinity];
  const alive = (x: { alive_at: string | null }) => time(x.alive_at) ?? -Infinity;
  return fresh > old || (fresh === old && alive(r) >= alive(s)) ? { ...s, ...r, unit: r.unit || s.unit } : s;
}

export function takeStations(stations: Station[]): void {
  const now = { at: performance.now(), stations };
  // Total below what it was: the process began anew, and so do the rates.
  const before = snapshots.value[0];
  const reset = before && sum(stations) < sum(before.stations);
  snapshots.value = reset ? [now] : [now, ...snapshots.value].slice(0, snapshotsKept);
}

const sum = (s: Station[]) =>
  s.reduce((n, x) => n + x.counters.reduce((m, c) => m + (c.name.endsWith("_now") ? 0 : c.value), 0), 0);

/** The asset on show: the chosen one, or on a wide screen the first. */
const wide = signal(matchMedia("(min-width: 760px)").matches);
matchMedia("(min-width: 760px)").addEventListener("change", (e) => (wide.value = e.matches));

export const selected = computed(() => route.value.asset ?? (wide.value ? (sorted.value[0]?.id ?? null) : null));

export const sorted = computed(() => {
  const order = new Intl.Collator("en", { numeric: true });
  return [...(assets.value ?? [])].sort(
    (a, b) => order.compare(a.site, b.site) || order.compare(a.line, b.line) || order.compare(a.asset, b.asset),
  );
});

let asking = false;

/** Asks for everything that the stream does not bring. */
export async function refresh(): Promise<void> {
  if (asking) return;
  asking = true;
  try {
    const [list, state, open] = await Promise.all([getAssets(), getStatus(), getUnclaimed().catch(() => null)]);
    batch(() => {
      assets.value = list;
      for (const a of list) {
        const at = time(a.event_time);
        if (at !== null && at > (newest.get(a.id) ?? -Infinity)) newest.set(a.id, at);
      }
      status.value = state;
      if (open) unclaimed.value = open.sensors ?? [];
    });
    if (linkState.value !== "live") setClock(Date.parse(state.plant_time), state.speed ?? 0);
  } catch (err) {
    if (!(err instanceof ApiError)) throw err;
    // The stream's own state says that the server is away.
  } finally {
    asking = false;
  }
}

export async function refreshDetail(id: string, abort?: AbortSignal): Promise<void> {
  try {
    const d = await getAsset(id, abort);
    if (selected.value !== id) return;
    batch(() => {
      detail.value = d;
      detailError.value = null;
      for (const s of d.sensors) if (!readings.has(s.path) && s.event_time !== null) readings.set(s.path, s);
    });
  } catch (err) {
    if (abort?.aborted) return;
    if (!(err instanceof ApiError)) throw err;
    if (selected.value === id) detailError.value = err;
  }
}

/** Follows the selection and keeps what was polled young. */
export function startStore(): void {
  effect(() => {
    const id = selected.value;
    if (detail.peek()?.id !== id) {
      batch(() => {
        detail.value = null;
        detailError.value = null;
      });
    }
    if (id === null) return;
    const abort = new AbortController();
    void refreshDetail(id, abort.signal);
    return () => abort.abort();
  });
  // A path nobody has told of yet: a new asset, or a new sensor of the one on show.
  effect(() => {
    readingsChanged.value;
    const d = detail.peek();
    const known = new Set((assets.peek() ?? []).map((a) => a.id));
    const own = new Set(d?.sensors.map((s) => s.path));
    let more = false;
    for (const path of readings.keys()) {
      const asset = path.slice(0, path.lastIndexOf("/"));
      if (!known.has(asset)) more = true;
      if (d && asset === d.id && !own.has(path) && strangers.get(path) !== d.id) {
        strangers.set(path, d.id);
        void refreshDetail(d.id);
      }
    }
    if (more) soon();
  });
  void refresh();
  setInterval(() => void refresh(), 3000);
  setInterval(() => selected.value && void refreshDetail(selected.value), 15_000);
}

// Each unknown path is asked for once per asset on show, not at every reading.
const strangers = new Map<string, string>();
let pending = 0;
function soon(): void {
  pending ||= setTimeout(() => {
    pending = 0;
    void refresh();
  }, 500) as unknown as number;
}
