// The way of a reading as a strip of stations, each with its counters and their rates.
import { signal } from "@preact/signals";
import { count, rate } from "./format";
import { snapshots } from "./store";
import type { Station } from "./api";

const order = ["edge", "broker", "bridge", "spine", "bronze", "silver", "gold", "predict"];

/** The counter that says what passed a station; the first that the station has. */
const passed: Record<string, string[]> = {
  edge: ["shipped"],
  broker: ["messages_in"],
  bridge: ["records", "messages"],
  spine: ["records"],
  bronze: ["rows"],
  silver: ["rows"],
  gold: ["windows"],
  predict: ["predictions"],
};

/** Counters that should stay at nought; they are shown when they do not. */
const troubles = /quarantin|dead_?letter|dropped|lost|evicted|refused|^late|slow_consumers|error|fail|corrupt|unsendable|overflow|intake_stopped|disk_full/;

const open = signal(false);

interface Row {
  name: string;
  value: number;
  perSecond: number | null; // null: a gauge
}

function rows(): Map<string, Row[]> {
  const list = snapshots.value;
  const now = list[0];
  const then = list.at(-1);
  const result = new Map<string, Row[]>();
  if (!now) return result;
  const seconds = then && then !== now ? (now.at - then.at) / 1000 : 0;
  const before = totals(then?.stations ?? []);
  for (const [station, counters] of totals(now.stations)) {
    result.set(
      station,
      [...counters].map(([name, value]) => ({
        name,
        value,
        perSecond: name.endsWith("_now") ? null : seconds > 0 ? Math.max(0, value - (before.get(station)?.get(name) ?? 0)) / seconds : 0,
      })),
    );
  }
  return result;
}

/** Several edges give one station, so equal names add up. */
function totals(stations: Station[]): Map<string, Map<string, number>> {
  const result = new Map<string, Map<string, number>>();
  for (const s of stations) {
    const own = result.get(s.station) ?? new Map<string, number>();
    for (const c of s.counters) own.set(c.name, (own.get(c.name) ?? 0) + c.value);
    result.set(s.station, own);
  }
  return result;
}

const label = (name: string) => name.replace(/_now$/, "").replaceAll("_", " ");

export function Stations() {
  const all = rows();
  if (all.size === 0) return null;
  const names = [...order.filter((n) => all.has(n)), ...[...all.keys()].filter((n) => !order.includes(n))];
  return (
    <section class="stations" aria-label="Stations">
      <ol class="strip">
        {names.map((name) => <Card key={name} name={name} rows={all.get(name) ?? []} />)}
      </ol>
      <button type="button" class="more" aria-expanded={open.value} aria-controls="counters" onClick={() => (open.value = !open.value)}>
        {open.value ? "Fewer counters" : "All counters"}
      </button>
      <div id="counters" class="counters" hidden={!open.value}>
        {open.value && names.map((name) => <Table key={name} name={name} rows={all.get(name) ?? []} />)}
      </div>
    </section>
  );
}

function Card({ name, rows: list }: { name: string; rows: Row[] }) {
  const main = passed[name]?.map((n) => list.find((r) => r.name === n)).find((r) => r) ?? list[0];
  const trouble = list.find((r) => r !== main && r.value > 0 && troubles.test(r.name));
  return (
    <li class="station">
      <span class="station-name">{name}</span>
      {main ? (
        <>
          <span class="station-value" title={`${main.value} ${label(main.name)}`}>
            {count(main.value)} {main.perSecond !== null && <small>{rate(main.perSecond)}</small>}
          </span>
          {trouble ? (
            <span class="station-trouble" title={`${trouble.value} ${label(trouble.name)}`}>
              {count(trouble.value)} {label(trouble.name)}
            </span>
          ) : (
            <span class="station-note">{label(main.name)}</span>
          )}
        </>
      ) : (
        <span class="station-note">nothing yet</span>
      )}
    </li>
  );
}

function Table({ name, rows: list }: { name: string; rows: Row[] }) {
  return (
    <table>
      <caption>{name}</caption>
      <tbody>
        {list.map((r) => (
          <tr key={r.name} class={r.value > 0 && troubles.test(r.name) ? "trouble" : undefined}>
            <th scope="row">{label(r.name)}</th>
            <td>{r.value.toLocaleString("en").replaceAll(",", "\u202f")}</td>
            <td>{r.perSecond === null ? "now" : rate(r.perSecond)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
