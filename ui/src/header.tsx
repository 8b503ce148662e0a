// The header: which plant, what time it is there, and whether what is shown is live.
import { clock, day, moments } from "./format";
import { Chip } from "./parts";
import { plantNow, plantSpeed } from "./plant";
import { openOrders } from "./maintenance";
import { home, maintenance, planning } from "./route";
import { assets, heardAt, linkState, status } from "./store";

function plantName(): string {
  const sites = [...new Set((assets.value ?? []).map((a) => a.site))].sort();
  return sites.length === 0 ? "" : sites.length <= 3 ? sites.join(", ") : `${sites.length} sites`;
}

function speed(): string {
  if (linkState.value === "lost") return "carried on by this page";
  const s = status.value;
  if (s?.speed === null) return "as fast as it goes";
  const v = s?.speed ?? plantSpeed.value;
  return v === 1 ? "real time" : `${v}× real time`;
}

export function Header() {
  const now = plantNow.value;
  const s = status.value;
  return (
    <header class="bar">
      <a class="brand" href={home}>
        <img src="./icon.svg" alt="" width="24" height="24" />
        <h1>Headrace</h1>
      </a>
      <nav aria-label="Views">
        <a href={home} aria-current={planning.value ? undefined : "page"}>Plant</a>{" "}
        <a href={maintenance} aria-current={planning.value ? "page" : undefined}>Maintenance{openOrders() > 0 && ` (${openOrders()})`}</a>
      </nav>
      <span class="plant" title="the sites of this plant">{plantName()}</span>
      <span class="grow" />
      {s?.drained && <Chip title="nothing is under way: every reading is where it ends">drained</Chip>}
      <span class="time">
        {now === null ? (
          "–"
        ) : (
          <time dateTime={new Date(now).toISOString()} title={moments(now)}>
            <span class="date">{day(now)} </span>
            <b>{clock(now)}</b> UTC
          </time>
        )}
        <span class="speed" title="the plant's time against the clock on the wall"> · {speed()}</span>
      </span>
      <Connection />
    </header>
  );
}

function Connection() {
  plantNow.value; // each second
  const state = linkState.value;
  const silent = heardAt.value === null ? 0 : Math.floor((performance.now() - heardAt.value) / 1000);
  return (
    <span class={`link link-${state}`} role="status">
      <span class="dot" aria-hidden="true" />
      {state === "live" ? "live" : state === "connecting" ? "connecting" : "reconnecting"}
      {state === "lost" && heardAt.value !== null && <span aria-hidden="true"> · silent for {silent} s</span>}
    </span>
  );
}

/** What is wrong with the whole, above everything else. */
export function Problems() {
  const list = status.value?.problems ?? [];
  const lost = linkState.value === "lost";
  if (!lost && list.length === 0) return null;
  return (
    <div class="problems" role="alert">
      {lost && (
        <p>
          <b>No connection to the server.</b> Values below are the last received; the page goes on by itself when it answers.
        </p>
      )}
      {list.map((p) => (
        <p key={p}>{p}</p>
      ))}
    </div>
  );
}
