// What the page's tests share: the browser, the checks that hold everywhere, and the talk with the Go test.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

// The Node packages belong to the page's source.
const require = createRequire(new URL("../../ui/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const failures = [];
export function check(ok, what) {
  console.log(`${ok ? "ok  " : "FAIL"} ${what}`);
  if (!ok) failures.push(what);
}

const lines = createInterface({ input: process.stdin });
const answers = lines[Symbol.asyncIterator]();

/** Asks the Go test for something only it can do, and waits until it is done. */
export async function ask(what) {
  console.log(`ask ${what}`);
  const { value } = await answers.next();
  if (value !== `done ${what}`) throw new Error(`asked ${what}, was told ${value}`);
}

/** Opens a page that may talk to its own host alone and may not complain. */
export async function open(browser, url, options = {}) {
  // axe comes in over the browser's own channel, so the page keeps its content policy.
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  const host = new URL(url).host;
  page.complaints = [];
  page.on("request", (r) => {
    if (new URL(r.url()).host !== host) page.complaints.push(`asked another host: ${r.url()}`);
  });
  page.on("pageerror", (e) => page.complaints.push(e.message));
  page.on("console", (m) => {
    if (m.type() === "error" || m.type() === "warning") page.complaints.push(m.text());
  });
  await page.goto(url);
  return page;
}

/** No accessibility violation, in both themes. */
export async function accessible(page, where) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    for (const v of violations) {
      console.log(`     ${v.impact} ${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(", ")}`);
    }
    check(violations.length === 0, `${where}, ${colorScheme}: axe finds no violation`);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** The age that a cell shows, in seconds. */
export function seconds(text) {
  const of = { s: 1, min: 60, h: 3600, d: 86_400 };
  return [...text.matchAll(/(\d+)\s*(min|s|h|d)/g)].reduce((sum, [, n, unit]) => sum + Number(n) * of[unit], 0);
}

/** Runs the test with a browser; on failure a picture of each open page goes to $SHOTS. */
export async function withBrowser(name, test) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: flags });
  try {
    await test(browser);
  } catch (err) {
    check(false, err.stack);
  }
  let n = 0;
  for (const page of browser.contexts().flatMap((c) => c.pages())) {
    if (failures.length === 0 || !process.env.SHOTS) break;
    const path = `${process.env.SHOTS}/${name}-${n++}.png`;
    await page.screenshot({ path, fullPage: true }).catch(() => {});
    console.log(`     picture: ${path}`);
  }
  await browser.close();
  lines.close();
  if (failures.length > 0) process.exitCode = 1;
}
