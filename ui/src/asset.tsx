// The asset on show: its sensors with value, quality, age, limits and owner, and the trend of one.
import { severity, statusOf, time, valueOf, type Sensor } from "./api";
import { number, unit, value } from "./format";
import { Age, Chip, Empty, Mark, word } from "./parts";
import { plantNow } from "./plant";
import { home, link, route } from "./route";
import { current, detail, detailError, readingsChanged, refreshDetail, selected, sorted } from "./store";
import { Trend } from "./trend";
import { Nothing } from "./tree";

export function AssetView() {
  readingsChanged.value;
  const id = selected.value;
  const d = detail.value;
  const failed = detailError.value;
  if (id === null) {
    return <section id="asset" class="asset" aria-label="Asset">{sorted.value.length > 0 ? <Empty title="Choose an asset" /> : <Nothing />}</section>;
  }
  if (!d) {
    return (
      <section id="asset" class="asset" aria-label="Asset">
        <Back />
        {failed?.status === 404 ? (
          <Empty title={`There is no asset ${id}`}>
            <p>It may have been renamed. <a href={home}>See all assets</a></p>
          </Empty>
        ) : failed ? (
          <Empty title="This asset cannot be shown now">
            <p>{failed.message}</p>
            <p><button type="button" onClick={() => void refreshDetail(id)}>Ask again</button></p>
          </Empty>
        ) : (
          <Empty title="Asking the server…" />
        )}
      </section>
    );
  }
  const sensors = d.sensors.map(current);
  const chosen = sensors.find((s) => s.sensor === route.value.sensor) ?? sensors[0];
  return (
    <section id="asset" class="asset" aria-label="Asset">
      <Back />
      <div class="asset-head">
        <h2>
          <span class="where">{d.site} / {d.line} / </span>{d.asset}
        </h2>
        {d.class && <Chip>{d.class}</Chip>}
        {!d.claimed && <Chip kind="warn" title="registered by its first value; nobody has said yet what it is">unclaimed</Chip>}
        <span class="grow" />
        <Summary sensors={sensors} />
        {d.description && <p class="about">{d.description}</p>}
        <p class="owner">Owner: {d.owner || <em>nobody yet</em>}</p>
      </div>
      {sensors.length === 0 ? (
        <Empty title="No sensor yet">
          <p>Sensors appear here with their first value.</p>
        </Empty>
      ) : (
        <Sensors asset={d.id} assetOwner={d.owner} sensors={sensors} chosen={chosen?.path ?? ""} />
      )}
      {chosen && <Trend key={`${chosen.path} ${route.value.window}`} asset={d.id} sensor={chosen} />}
    </section>
  );
}

function Back() {
  return <a class="back" href={home}>‹ All assets</a>;
}

function Summary({ sensors }: { sensors: Sensor[] }) {
  const now = plantNow.value;
  const tally = new Map<ReturnType<typeof statusOf>, number>();
  for (const s of sensors) tally.set(statusOf(s, now), (tally.get(statusOf(s, now)) ?? 0) + 1);
  const states = [...tally].sort((a, b) => severity[b[0]] - severity[a[0]]);
  return (
    <span class="summary">
      {states.map(([state, n]) => (
        <span key={state}><Mark status={state} /> {n} {word(state)}</span>
      ))}
    </span>
  );
}

function Sensors({ asset, assetOwner, sensors, chosen }: { asset: string; assetOwner: string; sensors: Sensor[]; chosen: string }) {
  const now = plantNow.value;
  return (
    <div class="sensors" tabIndex={0} role="region" aria-label="Sensors">
      <table role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th role="columnheader" scope="col">Sensor</th>
            <th role="columnheader" scope="col" class="num">Value</th>
            <th role="columnheader" scope="col" class="num" title="how long ago the value was measured, by the plant's clock">Measured</th>
            <th role="columnheader" scope="col" class="num" title="how long ago the edge last said that the value still holds">Last sign of life</th>
            <th role="columnheader" scope="col">Quality</th>
            <th role="columnheader" scope="col">Limits</th>
            <th role="columnheader" scope="col">Owner</th>
          </tr>
        </thead>
        <tbody role="rowgroup">
          {sensors.map((s) => {
            const status = statusOf(s, now);
            return (
              <tr key={s.path} role="row" data-path={s.path} data-status={status} class={s.path === chosen ? "chosen" : undefined}>
                <th role="rowheader" scope="row">
                  <a href={link(asset, s.sensor)} aria-current={s.path === chosen ? "true" : undefined}>
                    <Mark status={status} />
                    <span>{s.sensor}</span>
                  </a>
                </th>
                <Cells s={s} assetOwner={assetOwner} />
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Cells({ s, assetOwner }: { s: Sensor; assetOwner: string }) {
  const measured = time(s.event_time);
  const alive = time(s.alive_at);
  return (
    <>
      <td role="cell" class="num value" data-label="Value">
        {measured === null ? <span class="none">no value yet</span> : <><b>{value(valueOf(s))}</b> <span class="unit">{unit(s.unit)}</span></>}
      </td>
      <td role="cell" class="num measured" data-label="Measured"><Age at={measured} /></td>
      <td role="cell" class="num alive" data-label="Sign of life"><Age at={alive} class={alive === measured ? "same" : undefined} /></td>
      <td role="cell" data-label="Quality" class={s.good === false ? "not-good" : "usual"}>
        {s.quality === null ? <span class="none">–</span> : s.good ? "good" : <b>not good</b>}
        {s.quality !== null && s.quality !== 192 && <span class="code"> {s.quality}</span>}
      </td>
      <td role="cell" class="limits" data-label="Limits"><Limits s={s} /></td>
      <td role="cell" data-label="Owner" class={s.claimed && s.owner === assetOwner ? "usual" : undefined}>
        {!s.claimed ? <Chip kind="warn" title="registered by its first value; nobody has said yet what it is">unclaimed</Chip>
          : s.owner ? <span class={s.owner === assetOwner ? "same" : undefined}>{s.owner}</span> : <em>nobody yet</em>}
      </td>
    </>
  );
}

/** The possible range as a line with the value on it, and in numbers. */
function Limits({ s }: { s: Sensor }) {
  const { min, max } = s.limits;
  if (min === null && max === null) return <span class="none">none</span>;
  const text = min === null ? `≤ ${number(max!)}` : max === null ? `≥ ${number(min)}` : `${number(min)} … ${number(max)}`;
  const width = 64;
  const place = min !== null && max !== null && max > min && s.value !== null ? ((s.value - min) / (max - min)) * width : null;
  return (
    <>
      {place !== null && (
        <svg class="gauge" viewBox={`0 0 ${width} 10`} width={width} height="10" aria-hidden="true">
          <rect x="0" y="3.5" width={width} height="3" rx="1.5" />
          <path d="M0 0v10M64 0v10" />
          <circle cx={Math.min(width - 3, Math.max(3, place))} cy="5" r="3.2" />
        </svg>
      )}
      <span class="range">{text}</span>
    </>
  );
}
