// The maintenance planner's page: risks, work orders with their evidence, faults of sensors, what leaves the edges.
import { signal } from "@preact/signals";
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import { ApiError, closeOrder, getEgress, getFindings, getOrders, getRisks } from "./api";
import type { Contribution, Egress, Finding, Order, Risk } from "./api";
import { clock, count, day, moments, number, unit } from "./format";
import { Chip, Empty } from "./parts";
import { plantNow } from "./plant";
import { link } from "./route";

const risks = signal<Risk[] | null>(null);
const orders = signal<Order[]>([]);
const findings = signal<Finding[]>([]);
const egress = signal<Egress | null>(null);
const failed = signal("");
const chosenRisk = signal("");
const chosenOrder = signal("");

export const openOrders = () => orders.value.filter((o) => o.state === "open").length;

async function refresh(): Promise<void> {
  try {
    const [r, o, f, e] = await Promise.all([getRisks(), getOrders(), getFindings(), getEgress()]);
    risks.value = r;
    orders.value = o;
    findings.value = f;
    egress.value = e;
    failed.value = "";
  } catch (err) {
    failed.value = err instanceof Error ? err.message : String(err);
  }
}

/** Looks again every two seconds, one look at a time. */
export function startMaintenance(): void {
  const again = () => void refresh().finally(() => setTimeout(again, 2000));
  again();
}

const words: Record<string, string> = {
  healthy: "healthy", watch: "beyond its limit", alert: "order open", no_model: "no model", not_running: "not running",
  sensor_fault: "sensor fault", unknown: "too little data",
  outer_race: "outer race", inner_race: "inner race", ball: "rolling element", inconclusive: "inconclusive",
  stuck: "stuck", dead: "dead", impossible: "impossible values",
};
const say = (s: string) => words[s] ?? s.replaceAll("_", " ");

function When({ at }: { at: string | null }) {
  if (at === null) return <span class="none">–</span>;
  const ms = Date.parse(at);
  return <time dateTime={at} title={moments(ms)}>{day(ms)} {clock(ms)}</time>;
}

export function Maintenance() {
  return (
    <div class="maintenance" id="asset">
      {failed.value && <p class="failed" role="alert">{failed.value}</p>}
      <Risks />
      <Orders />
      <Findings />
      <Meter />
    </div>
  );
}

function Risks() {
  const list = risks.value;
  if (list === null) return <Empty title="Looking for risks" />;
  return (
    <section class="card" aria-labelledby="risks-title">
      <h2 id="risks-title">Risks</h2>
      {list.length === 0 ? (
        <Empty title="No machine is watched yet"><p>A risk appears with the first vibration window of a machine.</p></Empty>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label="List of risks">
          <table>
            <thead><tr><th scope="col">Machine</th><th scope="col">State</th><th scope="col">Score (limit 1)</th><th scope="col">Trend</th><th scope="col">Order</th></tr></thead>
            <tbody>
              {list.map((r) => {
                const key = `${r.asset}/${r.sensor}`;
                return (
                  <Fragment key={key}>
                    <tr data-status={r.status} data-asset={r.asset}>
                      <th scope="row">
                        <button type="button" class="plain" aria-expanded={chosenRisk.value === key} onClick={() => (chosenRisk.value = chosenRisk.value === key ? "" : key)}>{r.asset}</button>
                        <small> {r.class}</small>
                      </th>
                      <td><State of={r.status} /></td>
                      <td class="num">{r.score === null ? "–" : <><Bar score={r.score} /> {number(r.score)}</>}</td>
                      <td><Spark points={r.trend.map((p) => p.score)} /></td>
                      <td>{r.order && <button type="button" class="plain" onClick={() => (chosenOrder.value = r.order)}>{r.order}</button>}</td>
                    </tr>
                    {chosenRisk.value === key && (
                      <tr><td colSpan={5} class="detail">
                        <p><a href={link(r.asset)}>Values of {r.asset}</a> · owner {r.owner || "nobody"} · window until <When at={r.event_time} /> · model <code>{r.model || "none"}</code></p>
                        {r.status === "no_model" && <p>There is no model: name a healthy period of this machine in the registry.</p>}
                        <Evidence list={r.contributions} caption="What the score is made of" />
                      </td></tr>
                    )}
                  </Fragment>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** A state as shape, word and colour. */
function State({ of }: { of: string }) {
  const bad = of === "alert" || of === "watch";
  return (
    <span class={`state ${bad ? "state-bad" : of === "sensor_fault" ? "state-warn" : ""}`}>
      <svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
        {bad ? <path d="M6 0l6 6-6 6-6-6z" /> : of === "sensor_fault" ? <path d="M6 1 11.4 11H.6z" /> : <circle cx="6" cy="6" r="3" />}
      </svg>{" "}
      {say(of)}
    </span>
  );
}

/** A score against its limit, which is marked in the middle. */
function Bar({ score }: { score: number }) {
  const width = Math.min(score, 2) * 30;
  return (
    <svg class="score" viewBox="0 0 60 10" width="60" height="10" aria-hidden="true">
      <rect width="60" height="10" class="score-ground" />
      <rect width={width} height="10" class={score > 1 ? "score-bad" : "score-good"} />
      <path d="M30 0v10" class="score-limit" />
    </svg>
  );
}

function Spark({ points }: { points: number[] }) {
  if (points.length < 2) return null;
  const top = Math.max(1.2, ...points);
  const x = (i: number) => (100 * i) / (points.length - 1);
  const y = (v: number) => 20 - (20 * v) / top;
  return (
    <svg class="spark" viewBox="0 0 100 20" width="100" height="20" role="img" aria-label={`the last ${points.length} scores, now ${number(points.at(-1) ?? 0)}`}>
      <path d={`M0 ${y(1)}H100`} class="score-limit" />
      <polyline points={points.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ")} />
    </svg>
  );
}

function Evidence({ list, caption }: { list: Contribution[]; caption: string }) {
  if (list.length === 0) return null;
  return (
    <table class="evidence">
      <caption>{caption}</caption>
      <thead><tr><th scope="col">What</th><th scope="col">Now</th><th scope="col">Healthy</th><th scope="col">Deviation</th><th scope="col">Part</th></tr></thead>
      <tbody>
        {list.slice(0, 8).map((e) => (
          <tr key={e.feature}>
            <th scope="row">{e.feature}</th>
            <td class="num">{number(e.value)} {unit(e.unit)}</td>
            <td class="num">{number(e.healthy)} {unit(e.unit)}</td>
            <td class="num">{e.z >= 0 ? "+" : ""}{number(e.z)} σ</td>
            <td class="num">{Math.round(100 * e.share)} %</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Orders() {
  const list = orders.value;
  const open = list.find((o) => o.id === chosenOrder.value);
  return (
    <section class="card" aria-labelledby="orders-title">
      <h2 id="orders-title">Work orders</h2>
      {list.length === 0 && <p class="none">None. An order is made when a machine passes its limit for several windows.</p>}
      <ul class="orders">
        {list.map((o) => (
          <li key={o.id}>
            <button type="button" class="plain order" data-order={o.id} aria-expanded={o.id === chosenOrder.value} onClick={() => (chosenOrder.value = o.id === chosenOrder.value ? "" : o.id)}>
              <b>{o.id}</b> {o.title}
            </button>{" "}
            <Chip kind={o.state === "open" ? "warn" : ""}>{o.state}</Chip>
          </li>
        ))}
      </ul>
      {open && <OrderView order={open} />}
    </section>
  );
}

function OrderView({ order: o }: { order: Order }) {
  return (
    <article class="order-view" aria-label={`Order ${o.id}`}>
      <p>
        <a href={link(o.asset)}>{o.asset}</a> · {say(o.defect)} · {o.failure_mode} · {o.priority} · {o.sure} ({Math.round(100 * o.confidence)} %) · beyond its limit since <When at={o.started} />,
        raised <When at={o.raised} />, score {number(o.score)} · model <code>{o.model}</code>
      </p>
      <img class="spectrum" src={`/api/v1/orders/${encodeURIComponent(o.id)}/spectrum.svg`} width="720" height="260"
        alt={`Spectrum of the envelope of ${o.asset}, with the orders of outer race, inner race and ball marked`} />
      <Evidence list={o.evidence} caption="Evidence, at the worst window when the order was made" />
      {o.closing ? (
        <p class="closed">
          Closed: {say(o.closing.code)}, alert {say(o.closing.verdict)}, finished <When at={o.closing.finished_at} />{o.closing.by && ` by ${o.closing.by}`}
          {o.closing.note && <><br />{o.closing.note}</>}
        </p>
      ) : (
        <CloseForm key={o.id} id={o.id} />
      )}
    </article>
  );
}

const problem = signal("");

function CloseForm({ id }: { id: string }) {
  // As it was when the form opened: what is typed must stay.
  const [opened] = useState(() => new Date(plantNow.peek() ?? Date.now()).toISOString().slice(0, 19));
  const send = async (e: SubmitEvent) => {
    e.preventDefault();
    const data = new FormData(e.currentTarget as HTMLFormElement);
    const text = (name: string) => String(data.get(name) ?? "");
    try {
      problem.value = "";
      await closeOrder(id, {
        code: text("code"), verdict: text("verdict"), by: text("by"), note: text("note"), finished_at: new Date(`${text("finished")}Z`).toISOString(),
      });
      await refresh();
    } catch (err) {
      problem.value = err instanceof ApiError ? err.message : String(err);
    }
  };
  return (
    <form class="close" onSubmit={(e) => void send(e as unknown as SubmitEvent)} aria-label={`Close ${id}`}>
      <label>What was done
        <select name="code" required>
          <option value="repair">repaired</option><option value="replace">replaced</option><option value="adjust">adjusted</option>
          <option value="inspect">inspected</option><option value="no_fault">no fault found</option>
        </select>
      </label>
      <label>The alert was
        <select name="verdict" required>
          <option value="confirmed">confirmed</option><option value="not_confirmed">not confirmed</option><option value="unknown">unknown</option>
        </select>
      </label>
      <label>Finished (UTC)
        <input type="datetime-local" name="finished" step="1" required defaultValue={opened} />
      </label>
      <label>By <input name="by" maxLength={200} autocomplete="name" /></label>
      <label class="wide">Note <textarea name="note" rows={2} maxLength={4000} /></label>
      <button type="submit">Close the order</button>
      {problem.value && <p class="failed" role="alert">{problem.value}</p>}
    </form>
  );
}

function Findings() {
  const list = findings.value;
  return (
    <section class="card" aria-labelledby="findings-title">
      <h2 id="findings-title">Sensors</h2>
      {list.length === 0 && <p class="none">No sensor is stuck, dead or impossible.</p>}
      <ul>
        {list.map((f) => (
          <li key={f.path + f.kind + f.since} data-finding={f.path}>
            <b>{f.path}</b> {say(f.kind)} <Chip kind={f.state === "open" ? "warn" : ""}>{f.state}</Chip> since <When at={f.since} />: {f.evidence} · owner {f.owner || "nobody"}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Meter() {
  const e = egress.value;
  if (!e || e.classes.length === 0) return null;
  const bytes = (n: number) => `${count(n)}B`;
  return (
    <section class="card" aria-labelledby="egress-title">
      <h2 id="egress-title">What leaves the edges</h2>
      <p>
        {bytes(e.sent_bytes)} sent since the start, {bytes(e.raw_bytes)} as 16-bit raw under zstd: {e.saved >= 0 ? `${(100 * e.saved).toFixed(1)} % less` : `${(-100 * e.saved).toFixed(0)} % more`}. In it: births {bytes(e.births_bytes)},
        idle {bytes(e.idle_bytes)}, acknowledgements {bytes(e.acks_bytes)}.
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Egress by class">
        <table>
          <thead><tr><th scope="col">Class</th><th scope="col">Raw</th><th scope="col">Data</th><th scope="col">Heartbeats</th><th scope="col">Waveforms</th><th scope="col">Resent</th><th scope="col">Largest error</th></tr></thead>
          <tbody>
            {e.classes.map((c) => (
              <tr key={c.class}>
                <th scope="row">{c.class}</th>
                <td class="num">{bytes(c.raw_bytes)}</td><td class="num">{bytes(c.data_bytes)}</td><td class="num">{bytes(c.heartbeat_bytes)}</td>
                <td class="num">{bytes(c.waveform_bytes)}</td><td class="num">{bytes(c.resent_bytes)}</td>
                <td>{c.max_error_path ? `${number(c.max_error)} ${unit(c.max_error_unit)} (${number(c.max_error_of_deadband)} of the deadband), ${c.max_error_path}` : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
