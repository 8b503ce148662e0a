// The selection lives in the address: #/site/line/asset[/sensor][?window=seconds].
import { computed, signal } from "@preact/signals";
import { segments } from "./api";

export const windows = [
  { seconds: 300, label: "5 min" },
  { seconds: 1800, label: "30 min" },
  { seconds: 10_800, label: "3 h" },
  { seconds: 86_400, label: "1 d" },
  { seconds: 604_800, label: "7 d" },
] as const;

interface Route {
  asset: string | null; // site/line/asset
  sensor: string | null; // the last name alone
  window: number; // seconds of trend
}

function parse(hash: string): Route {
  if (hash === maintenance) hash = "";
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const names = path.split("/").filter(Boolean).map(decode);
  const asked = Number(new URLSearchParams(query).get("window"));
  return {
    asset: names.length >= 3 ? names.slice(0, 3).join("/") : null,
    sensor: names[3] ?? null,
    window: windows.find((w) => w.seconds === asked)?.seconds ?? 300,
  };
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s;
  }
}

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

/** The planner's page has an address that no plant's name can be. */
export const maintenance = "#maintenance";
export const planning = computed(() => hash.value === maintenance);

export const route = computed(() => parse(hash.value));

export function link(asset: string, sensor?: string | null, window = route.value.window): string {
  const path = sensor ? `${asset}/${sensor}` : asset;
  return `#/${segments(path)}${window === 300 ? "" : `?window=${window}`}`;
}

export const home = "#/";
