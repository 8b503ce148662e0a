// A plant of the imagination behind the real page, for work on the page alone:
//   node ui/dev/mock.mjs [PORT] [--empty] [--speed=N]
// POST /mock/lose makes it mute, POST /mock/return ends that.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const option = (name) => process.argv.find((a) => a.startsWith(`--${name}`))?.split("=")[1] ?? process.argv.includes(`--${name}`);
const port = /^\d+$/.test(process.argv[2] ?? "") ? Number(process.argv[2]) : 8081;
const speed = Number(option("speed")) || 1;
let gone = false;
const dist = join(fileURLToPath(new URL(".", import.meta.url)), "..", "dist");

const wall0 = Date.now();
const plant0 = Date.parse("2020-03-09T10:14:00Z");
const plantNow = () => plant0 + (Date.now() - wall0) * speed;
const iso = (ms) => new Date(ms).toISOString().replace(".000Z", "Z");

const kinds = [
  ["accelerometer1_rms", "[g]", 0.0268, 0.0006, 0, 16],
  ["accelerometer2_rms", "[g]", 0.0402, 0.001, 0, 16],
  ["current", "A", 1.33, 0.3, 0, 50],
  ["pressure", "bar", 0.0547, 0.25, -1, 16],
  ["temperature", "Cel", 79.31, 0.12, -40, 150],
  ["thermocouple", "Cel", 26.02, 0.02, -40, 400],
  ["voltage", "V", 228.4, 6, 0, 300],
  ["volume_flow_rate_rms", "L/min", 32.0, 0.4, 0, 200],
];
const noise = (i, t) => Math.sin(t / 7300 + i) * 0.6 + Math.sin(t / 1100 + i * 3) * 0.25 + Math.sin(t * 12.9898 + i * 78.233) * 0.3;

const assets = [];
const lines = { "anomaly-free": ["anomaly-free"], other: ["9", "11"], valve1: Array.from({ length: 16 }, (_, i) => String(i)) };
if (!option("empty")) {
  for (const [line, names] of Object.entries(lines)) {
    for (const asset of names) {
      const claimed = asset !== "11";
      const cut = line === "other";
      assets.push({
        id: `skab/${line}/${asset}`, site: "skab", line, asset, claimed, cut,
        class: claimed ? "pump" : "", description: claimed ? "Pump loop of the SKAB test bench" : "",
        owner: claimed ? "Rotating equipment" : "",
      });
    }
  }
}

function sensors(a, now) {
  const list = kinds.map(([sensor, unit, base, spread, min, max], i) => {
    const end = a.cut ? plant0 - 400_000 : now;
    const held = i === 5 ? Math.floor(end / 45_000) * 45_000 : Math.floor(end / 1000) * 1000;
    const bad = a.asset === "3" && i === 3;
    const silent = a.asset === "7" && i === 7;
    return {
      path: `${a.id}/${sensor}`, sensor, sensor_id: sensor, kind: silent ? "" : "number",
      value: silent ? null : base + spread * noise(i, held / 1000), text: null, unit,
      event_time: silent ? null : iso(held), alive_at: silent ? null : iso(i === 5 ? Math.floor(end / 5000) * 5000 : held),
      quality: silent ? null : bad ? 24 : 192, good: silent ? null : !bad,
      limits: { min: a.claimed ? min : null, max: a.claimed ? max : null },
      interpolation: i === 5 ? "step" : "linear", max_hold_seconds: 300, owner: a.owner, claimed: a.claimed,
      status: silent ? "silent" : bad ? "bad" : now - held > 300_000 ? "stale" : "good",
    };
  });
  if (a.asset === "0") {
    list.push({
      ...list[2], path: `${a.id}/oil_dew_point`, sensor: "oil_dew_point", unit: "", value: -12.5 + noise(9, now / 1000),
      limits: { min: null, max: null }, owner: "", claimed: false,
    });
    list.push({ ...list[2], path: `${a.id}/mode`, sensor: "mode", unit: "", kind: "text", value: null, text: "automatic", limits: { min: null, max: null } });
  }
  return list;
}

const order = ["good", "silent", "stale", "bad"];
function summary(a) {
  const now = plantNow();
  const own = sensors(a, now);
  const event_time = own.map((s) => s.event_time).filter(Boolean).sort().at(-1);
  return { ...a, sensors: own.length, event_time, age_seconds: (now - Date.parse(event_time)) / 1000, status: order[Math.max(...own.map((s) => order.indexOf(s.status)))] };
}

function series(path, query) {
  const cut = path.lastIndexOf("/");
  const a = assets.find((x) => x.id === path.slice(0, cut));
  const i = Math.max(0, kinds.findIndex((k) => k[0] === path.slice(cut + 1)));
  const [, unit, base, spread] = kinds[i];
  const [from, to, points] = [Date.parse(query.get("from")), Date.parse(query.get("to")), Number(query.get("points"))];
  const end = Math.min(to, a?.cut ? plant0 - 400_000 : plantNow());
  const step = i === 5 ? 45_000 : 1000;
  const start = Math.max(from, plant0 - 20 * 3600_000);
  const head = { path, unit, plant_time: iso(plantNow()), from: iso(from), to: iso(to) };
  const at = (ms) => base + spread * noise(i, ms / 1000);
  if ((end - start) / step <= points) {
    const t = [];
    for (let ms = Math.ceil(start / step) * step; ms <= end; ms += step) t.push(ms / 1000);
    return { ...head, mode: "raw", count: t.length, t, value: t.map((s) => at(s * 1000)), good: t.map((s) => !(a?.asset === "3" && i === 3 && s % 60 > 40)) };
  }
  const width = (to - from) / points;
  const out = { ...head, mode: "buckets", count: 0, t: [], min: [], max: [], mean: [], n: [], good_n: [], bucket_seconds: width / 1000 };
  for (let ms = start; ms <= end; ms += width) {
    out.t.push(ms / 1000);
    out.mean.push(at(ms));
    out.min.push(at(ms) - spread * 0.4);
    out.max.push(at(ms) + spread * (ms % 977_000 < 3000 ? 2 : 0.4));
    out.n.push(Math.round(width / step));
    out.good_n.push(Math.round(width / step));
  }
  out.count = out.t.length;
  return out;
}

function stations() {
  const n = Math.floor(((plantNow() - plant0) / 1000) * assets.length * 8) + 1_240_311;
  const counters = (o) => Object.entries(o).map(([name, value]) => ({ name, value }));
  return {
    plant_time: iso(plantNow()),
    stations: [
      { station: "edge", counters: counters({ emitted: n, derived: 0, held: 412, filtered: 311_902, shipped: n - 311_490, evicted: 0, retried: 0, lost: 0 }) },
      { station: "broker", counters: counters({ connections_now: 37, connections: 41, messages_in: n >> 3, bytes_in: n * 31, slow_consumers: 0 }) },
      { station: "bridge", counters: counters({ records: n >> 3, acked: n >> 3, dead_letters: 0, pending_bytes_now: 4096 }) },
      { station: "spine", counters: counters({ records: n >> 3, bytes: n * 44 }) },
      { station: "bronze", counters: counters({ rows: n - 311_490, repeats: 12 }) },
      { station: "silver", counters: counters({ rows: n - 311_497, quarantined: 7, late: 0 }) },
      { station: "gold", counters: counters({ windows: n >> 6, reopened: 3 }) },
    ],
  };
}

const statusBody = () => ({
  ready: true, plant_time: iso(plantNow()), speed, drained: false, version: "0.1.0", roles: ["edge", "broker"], addresses: {}, problems: [],
});

const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

const server = createServer((req, res) => {
  const url = new URL(req.url, "http://mock");
  if (req.method === "POST" && url.pathname.startsWith("/mock/")) {
    gone = url.pathname === "/mock/lose";
    return res.end();
  }
  if (gone) return res.destroy();
  const path = decodeURIComponent(url.pathname);
  res.setHeader("content-security-policy", "default-src 'self'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'");
  const json = (body, code = 200) => {
    res.writeHead(code, { "content-type": "application/json" });
    res.end(JSON.stringify(body));
  };
  if (path === "/api/v1/assets") return json({ plant_time: iso(plantNow()), registry_version: 2, assets: assets.map(summary) });
  if (path === "/api/v1/status") return json(statusBody());
  if (path === "/api/v1/stations") return json(stations());
  if (path === "/api/v1/risks") return json({ plant_time: iso(plantNow()), risks: [] });
  if (path === "/api/v1/orders") return json({ orders: [] });
  if (path === "/api/v1/findings") return json({ findings: [] });
  if (path === "/api/v1/egress") return json({ classes: [], births_bytes: 0, idle_bytes: 0, acks_bytes: 0, sent_bytes: 0, raw_bytes: 0, saved: 0 });
  if (path === "/api/v1/registry/unclaimed") {
    const list = assets.flatMap((a) => sensors(a, plantNow())).filter((s) => !s.claimed);
    return json({ registry_version: 2, sensors: list.map((s) => ({ path: s.path, since: iso(plant0) })) });
  }
  if (path.startsWith("/api/v1/assets/")) {
    const a = assets.find((x) => x.id === path.slice("/api/v1/assets/".length));
    return a ? json({ ...summary(a), plant_time: iso(plantNow()), sensors: sensors(a, plantNow()) }) : json({ title: "Not Found", status: 404, detail: "unknown asset" }, 404);
  }
  if (path.startsWith("/api/v1/sensors/")) return json(series(path.slice("/api/v1/sensors/".length), url.searchParams));
  if (path === "/api/v1/live") return live(res);
  const file = normalize(join(dist, path === "/" ? "index.html" : path));
  if (!file.startsWith(dist) || !existsSync(file)) return json({ title: "Not Found", status: 404 }, 404);
  res.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(res);
}).listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));

function live(res) {
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const send = (event, data) => res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  const sent = new Map();
  const tick = () => {
    if (gone) return res.destroy();
    send("clock", { plant_time: iso(plantNow()), speed });
    send("stations", stations());
    for (const a of assets) {
      for (const s of sensors(a, plantNow())) {
        if (s.event_time === null || sent.get(s.path) === s.event_time + s.alive_at) continue;
        sent.set(s.path, s.event_time + s.alive_at);
        send("reading", s);
      }
    }
  };
  tick();
  const timer = setInterval(tick, 1000);
  res.on("close", () => clearInterval(timer));
}
