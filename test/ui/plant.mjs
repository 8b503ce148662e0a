// The page over the real binary: plant.mjs URL ASSET. The Go test cuts the edge and ends the server when asked.
import { accessible, ask, check, open, seconds, withBrowser } from "./lib.mjs";

const [url, asset] = process.argv.slice(2);
const sensor = "current";
const row = `tr[data-path="${asset}/${sensor}"]`;
const timeout = 30_000;

await withBrowser("plant", async (browser) => {
  const page = await open(browser, `${url}#/${asset}/${sensor}`);
  await page.locator(".link-live").waitFor({ timeout });
  await page.locator(`${row} .value b`).waitFor({ timeout });
  const value = () => page.locator(`${row} .value b`).innerText();
  const age = async () => seconds(await page.locator(`${row} .measured`).innerText());

  const first = await value();
  await page.waitForFunction(([sel, old]) => document.querySelector(sel)?.textContent !== old, [`${row} .value b`, first], { timeout });
  check(true, `the value changes: ${first} → ${await value()}`);
  const measured = await page.locator(`${row} .measured time`).getAttribute("datetime");
  await page.waitForFunction(
    ([sel, old]) => document.querySelector(sel)?.getAttribute("datetime") !== old,
    [`${row} .measured time`, measured], { timeout });
  check(true, "and so does the time it was measured");

  await page.waitForFunction(() => Number(/(\d+) points/.exec(document.querySelector(".plot")?.ariaLabel ?? "")?.[1]) > 2, null, { timeout });
  check(true, `the trend is drawn: ${await page.locator(".plot").getAttribute("aria-label")}`);
  const stations = await page.locator(".station-name").allInnerTexts();
  check(["broker", "bridge", "bronze", "silver", "gold"].every((s) => stations.includes(s)), `stations: ${stations.join(" → ")}`);

  // With the keyboard alone: the next sensor.
  const second = page.locator(".sensors tbody a").nth(1);
  await second.focus();
  await page.keyboard.press("Enter");
  await page.locator(".trend h3", { hasText: await second.innerText() }).waitFor({ timeout });
  check(true, "Enter on a sensor shows its trend");
  await accessible(page, "asset");
  check(page.complaints.length === 0, `nothing complains: ${page.complaints.join("; ")}`);

  await ask("cut");
  // What was under way when the edge was cut may still come in; then nothing changes but the age.
  let held = await page.locator(`${row} .measured time`).getAttribute("datetime");
  let from = await age();
  const limit = Date.now() + timeout;
  while ((await age()) < from + 8) {
    if (Date.now() > limit) throw new Error("the age does not grow");
    await page.waitForTimeout(250);
    const now = await page.locator(`${row} .measured time`).getAttribute("datetime");
    if (now !== held) [held, from] = [now, await age()];
  }
  check(true, `cut off: ${await value()} ages from ${from} s to ${await age()} s`);
  check(await page.locator(".link-live").isVisible(), "the page itself is live meanwhile");

  await ask("end");
  await page.locator(".link-lost").waitFor({ timeout });
  check(await page.locator(".problems").isVisible(), "without a server the page says so");
});
