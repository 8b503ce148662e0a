// Site → line → asset, each with the worst state below it and the age of its newest value.
import { signal } from "@preact/signals";
import { severity, statusOf, type Asset, type Status } from "./api";
import { Age, Empty, Mark } from "./parts";
import { plantNow } from "./plant";
import { link } from "./route";
import { assets, current, detail, linkState, newest, readingsChanged, selected, sorted, unclaimed } from "./store";

const filter = signal("");

interface Branch {
  name: string;
  assets: Asset[];
}

function branches(list: Asset[], of: (a: Asset) => string): Branch[] {
  const found = new Map<string, Asset[]>();
  for (const a of list) {
    const name = of(a);
    const group = found.get(name);
    if (group) group.push(a);
    else found.set(name, [a]);
  }
  return [...found].map(([name, group]) => ({ name, assets: group }));
}

/** The server's word, or for the asset on show what its sensors say this second. */
function status(a: Asset): Status {
  const d = detail.value;
  if (d?.id !== a.id) return a.status;
  const now = plantNow.value;
  readingsChanged.value;
  return d.sensors.reduce<Status>((worst, s) => {
    const own = statusOf(current(s), now);
    return severity[own] > severity[worst] ? own : worst;
  }, "good");
}

function worst(list: Asset[]): Status {
  return list.reduce<Status>((w, a) => (severity[status(a)] > severity[w] ? status(a) : w), "good");
}

function newestOf(list: Asset[]): number | null {
  readingsChanged.value;
  const times = list.map((a) => newest.get(a.id)).filter((t) => t !== undefined);
  return times.length > 0 ? Math.max(...times) : null;
}

export function Tree() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const list = sorted.value.filter((a) => {
    const text = `${a.id} ${a.class} ${a.owner} ${a.description}`.toLowerCase();
    return words.every((w) => text.includes(w));
  });
  return (
    <nav class="tree" aria-label="Assets">
      <div class="tree-head">
        <input
          type="search"
          placeholder="Find an asset or owner"
          aria-label="Find an asset or owner"
          value={filter.value}
          onInput={(e) => (filter.value = e.currentTarget.value)}
        />
      </div>
      <div class="tree-body" tabIndex={0} role="group" aria-label="Sites, lines and assets">
        <Body list={list} filtered={words.length > 0} />
      </div>
      <Strangers />
    </nav>
  );
}

function Body({ list, filtered }: { list: Asset[]; filtered: boolean }) {
  if (list.length === 0) {
    return filtered && assets.value ? (
      <Empty title="Nothing fits">
        <p><button type="button" onClick={() => (filter.value = "")}>Show all {assets.value.length} assets</button></p>
      </Empty>
    ) : (
      <Nothing />
    );
  }
  return (
    <ul class="sites">
      {branches(list, (a) => a.site).map((site) => (
        <li key={site.name}>
          <Head branch={site} level="site" />
          <ul>
            {branches(site.assets, (a) => a.line).map((line) => (
              <li key={line.name}>
                <details open>
                  <summary><Head branch={line} level="line" /></summary>
                  <ul>{line.assets.map((a) => <Leaf key={a.id} asset={a} />)}</ul>
                </details>
              </li>
            ))}
          </ul>
        </li>
      ))}
    </ul>
  );
}

/** Why there is no asset to see, and what to do. */
export function Nothing() {
  if (assets.value !== null) {
    return (
      <Empty title="No asset yet">
        <p>Assets appear here with their first value. To see some, replay recordings:</p>
        <p><code>headrace up --replay skab:DIR --speed 60</code></p>
      </Empty>
    );
  }
  return linkState.value === "lost" ? (
    <Empty title="The server does not answer">
      <p>Start it with <code>headrace up</code>. This page goes on by itself.</p>
    </Empty>
  ) : (
    <Empty title="Asking the server…" />
  );
}

function Head({ branch, level }: { branch: Branch; level: string }) {
  return (
    <span class={`row ${level}`}>
      <Mark status={worst(branch.assets)} />
      <span class="name">{branch.name}</span>
      <span class="count" title={`${branch.assets.length} assets`}>{branch.assets.length}</span>
      <Age at={newestOf(branch.assets)} />
    </span>
  );
}

function Leaf({ asset: a }: { asset: Asset }) {
  const chosen = a.id === selected.value;
  return (
    <li>
      <a class="row leaf" href={link(a.id)} aria-current={chosen ? "page" : undefined} title={a.description || undefined}>
        <Mark status={status(a)} />
        <span class="name">{a.asset}</span>
        {!a.claimed && <span class="chip warn">unclaimed</span>}
        <Age at={newestOf([a])} />
      </a>
    </li>
  );
}

/** Sensors that sent values before anybody said what they are. */
function Strangers() {
  const list = unclaimed.value;
  if (list.length === 0) return null;
  return (
    <details class="strangers">
      <summary>{list.length} unclaimed {list.length === 1 ? "sensor" : "sensors"}</summary>
      <p>They have no owner and no limits until somebody registers them.</p>
      <ul>
        {list.slice(0, 200).map(({ path }) => {
          const cut = path.lastIndexOf("/");
          return <li key={path}><a href={link(path.slice(0, cut), path.slice(cut + 1))}>{path}</a></li>;
        })}
      </ul>
      {list.length > 200 && <p>and {list.length - 200} more</p>}
    </details>
  );
}
