// What the server says, as it says it, and what the page makes of it.
import type { Value } from "./format";

export type Status = "good" | "silent" | "stale" | "bad";

export interface Asset {
  id: string;
  site: string;
  line: string;
  asset: string;
  class: string;
  description: string;
  owner: string;
  claimed: boolean;
  sensors: number;
  event_time: string | null;
  status: Status;
}

export interface Reading {
  path: string;
  kind: string;
  value: number | null;
  text: string | null;
  unit: string;
  event_time: string | null;
  alive_at: string | null;
  quality: number | null;
  good: boolean | null;
}

export interface Sensor extends Reading {
  sensor: string;
  limits: { min: number | null; max: number | null };
  interpolation: string;
  max_hold_seconds: number;
  owner: string;
  claimed: boolean;
}

export interface AssetDetail extends Omit<Asset, "sensors"> {
  sensors: Sensor[];
}

export interface Series {
  unit: string;
  from: string;
  to: string;
  mode: "raw" | "buckets";
  count: number;
  t: number[];
  value?: (number | null)[];
  good?: boolean[];
  min?: (number | null)[];
  max?: (number | null)[];
  mean?: (number | null)[];
  bucket_seconds?: number;
}

export interface Station {
  station: string;
  counters: { name: string; value: number }[];
}

export interface ServerStatus {
  ready: boolean;
  plant_time: string;
  speed: number | null;
  drained: boolean;
  version: string;
  roles: string[];
  addresses: Record<string, string>;
  problems: string[];
}

export interface Unclaimed {
  path: string;
  since: string;
}

export interface Contribution {
  feature: string;
  unit: string;
  value: number;
  healthy: number;
  z: number;
  share: number;
}

export interface Risk {
  asset: string;
  class: string;
  owner: string;
  sensor: string;
  status: string;
  score: number | null;
  event_time: string | null;
  model: string;
  trend: { t: number; score: number }[];
  contributions: Contribution[];
  order: string;
}

export interface Closing {
  code: string;
  verdict: string;
  finished_at: string;
  by?: string;
  note?: string;
}

export interface Order {
  id: string;
  asset: string;
  title: string;
  defect: string;
  failure_mode: string;
  priority: string;
  state: "open" | "closed";
  started: string | null;
  raised: string | null;
  confidence: number;
  sure: string;
  score: number;
  model: string;
  evidence: Contribution[];
  closing: Closing | null;
}

export interface Finding {
  path: string;
  kind: string;
  state: "open" | "ended";
  since: string | null;
  evidence: string;
  owner: string;
}

export interface Egress {
  classes: {
    class: string;
    raw_bytes: number;
    data_bytes: number;
    heartbeat_bytes: number;
    waveform_bytes: number;
    resent_bytes: number;
    max_error: number;
    max_error_unit: string;
    max_error_path: string;
    max_error_of_deadband: number;
  }[];
  births_bytes: number;
  idle_bytes: number;
  acks_bytes: number;
  sent_bytes: number;
  raw_bytes: number;
  saved: number;
}

/** An answer that is not what was asked for; status 0 is no answer at all. */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const root = "/api/v1/";

/** Names as URL segments. */
export const segments = (path: string) => path.split("/").map(encodeURIComponent).join("/");

const get = <T,>(path: string, abort?: AbortSignal) => ask<T>(path, { headers: { accept: "application/json" }, signal: abort ?? null }, abort);

/** RFC 9457, with what was wrong with a request's parts. */
interface Problem {
  detail?: string;
  title?: string;
  errors?: { location?: string; message?: string }[];
}

async function ask<T>(path: string, init: RequestInit, abort?: AbortSignal): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(root + path, init);
  } catch (err) {
    if (abort?.aborted) throw err;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!answer.ok) {
    const problem = (await answer.json().catch(() => null)) as Problem | null;
    const causes = problem?.errors?.map((e) => `${e.location ?? ""} ${e.message ?? ""}`.trim()).join("; ");
    throw new ApiError(answer.status, causes || problem?.detail || problem?.title || `The server answered ${answer.status}.`);
  }
  return (await answer.json()) as T;
}

export const getAssets = async () => (await get<{ assets: Asset[] | null }>("assets")).assets ?? [];
export const getRisks = async () => (await get<{ risks: Risk[] | null }>("risks")).risks ?? [];
export const getOrders = async () => (await get<{ orders: Order[] | null }>("orders")).orders ?? [];
export const getFindings = async () => (await get<{ findings: Finding[] | null }>("findings")).findings ?? [];
export const getEgress = () => get<Egress>("egress");
export const closeOrder = (id: string, closing: Closing) =>
  ask<Order>(`orders/${encodeURIComponent(id)}/close`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(closing) });
export const getStatus = () => get<ServerStatus>("status");
export const getUnclaimed = () => get<{ sensors: Unclaimed[] | null }>("registry/unclaimed");
export async function getAsset(id: string, abort?: AbortSignal): Promise<AssetDetail> {
  const d = await get<AssetDetail>(`assets/${segments(id)}`, abort);
  return { ...d, sensors: d.sensors ?? [] };
}

export function getSeries(path: string, from: number, to: number, points: number, abort?: AbortSignal): Promise<Series> {
  const query = new URLSearchParams({
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    points: String(points),
  });
  return get<Series>(`sensors/${segments(path)}?${query}`, abort);
}

/** A reading's value; a truth value arrives as 0 or 1. */
export function valueOf(r: Reading): Value {
  if (r.kind === "text") return r.text;
  if (r.kind === "bool" && r.value !== null) return r.value !== 0;
  return r.value;
}

/** Milliseconds since the epoch, or null. */
export const time = (s: string | null) => (s === null ? null : Date.parse(s));

/** What is worse has the higher number. */
export const severity: Record<Status, number> = { good: 0, silent: 1, stale: 2, bad: 3 };

/** The state of a sensor at plant time now, by the rule the server uses. */
export function statusOf(s: Sensor, now: number | null): Status {
  const alive = time(s.alive_at ?? s.event_time);
  if (alive === null) return "silent";
  if (s.good === false) return "bad";
  return now !== null && now - alive > s.max_hold_seconds * 1000 ? "stale" : "good";
}
