// The stream of the server, and the truth about whether it still speaks.
import { batch } from "@preact/signals";
import type { Reading, Station } from "./api";
import { setClock } from "./plant";
import { detail, heardAt, linkState, refresh, refreshDetail, takeReading, takeStations } from "./store";

// The clock comes each second. Longer silence is a lost connection, whatever the socket says.
const patience = 4000;
const retryFirst = 1000;
const retryMost = 8000;

let source: EventSource | null = null;
let wait = retryFirst;
let retryTimer = 0;

function heard(): void {
  const was = linkState.peek();
  batch(() => {
    heardAt.value = performance.now();
    linkState.value = "live";
  });
  wait = retryFirst;
  if (was !== "live") {
    void refresh();
    const d = detail.peek();
    if (was === "lost" && d) void refreshDetail(d.id);
  }
}

function open(): void {
  close();
  source = new EventSource("/api/v1/live");
  source.addEventListener("clock", (e) => {
    const c = JSON.parse((e as MessageEvent<string>).data) as { plant_time: string; speed: number | null };
    // At full speed the plant's time moves with its events alone.
    setClock(Date.parse(c.plant_time), c.speed ?? 0);
    heard();
  });
  source.addEventListener("reading", (e) => {
    takeReading(JSON.parse((e as MessageEvent<string>).data) as Reading);
  });
  source.addEventListener("stations", (e) => {
    takeStations((JSON.parse((e as MessageEvent<string>).data) as { stations: Station[] }).stations);
  });
  source.onerror = () => lost();
}

function close(): void {
  clearTimeout(retryTimer);
  source?.close();
  source = null;
}

function lost(): void {
  if (linkState.peek() === "live") linkState.value = "lost";
  close();
  retryTimer = setTimeout(open, wait) as unknown as number;
  wait = Math.min(wait * 2, retryMost);
  if (linkState.peek() === "connecting" && wait > 2 * retryFirst) linkState.value = "lost";
}

export function startLive(): void {
  open();
  setInterval(() => {
    const at = heardAt.peek();
    if (linkState.peek() === "live" && at !== null && performance.now() - at > patience) lost();
  }, 1000);
  addEventListener("online", () => linkState.peek() !== "live" && open());
  // Browsers put hidden pages to sleep; what they show on waking must not be old.
  addEventListener("pageshow", (e) => e.persisted && open());
  addEventListener("pagehide", close);
}
