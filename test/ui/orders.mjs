// From the risk to the closed order, over a simulated plant: orders.mjs ADDRESS
import { accessible, check, open, withBrowser } from "./lib.mjs";

const [address] = process.argv.slice(2);
const timeout = 90_000;

await withBrowser("orders", async (browser) => {
  const page = await open(browser, `${address}#maintenance`);
  await page.locator("nav a[aria-current=page]", { hasText: "Maintenance" }).waitFor({ timeout });

  const risk = page.locator("tr[data-status=watch], tr[data-status=alert]").first();
  await risk.waitFor({ timeout });
  const asset = await risk.getAttribute("data-asset");
  await risk.locator("th button").click();
  await page.locator(".detail .evidence tbody tr").nth(3).waitFor({ timeout });
  check((await page.locator(".detail .evidence tbody th").allInnerTexts()).some((t) => t.includes("envelope") || t.includes("kurtosis") || t.includes("RMS")), "the risk says what it is made of");
  await accessible(page, "a risk unfolded");

  const order = page.locator(".orders [data-order]").first();
  await order.waitFor({ timeout });
  await order.click();
  const view = page.locator(".order-view");
  await view.waitFor({ timeout });
  check((await view.innerText()).includes(asset), `the order is of ${asset}`);
  await page.waitForFunction(() => document.querySelector(".spectrum")?.complete, null, { timeout });
  check(await page.locator(".spectrum").evaluate((i) => i.naturalWidth > 0), "the order shows its spectrum");
  check((await view.locator(".evidence tbody tr").count()) >= 4, "the order shows its evidence");
  await accessible(page, "an order unfolded");

  // By keyboard alone, as far as the form goes.
  await view.locator("select[name=code]").focus();
  await page.keyboard.press("r");
  await page.keyboard.press("Tab");
  await page.keyboard.press("c");
  check((await view.locator("select[name=code]").inputValue()).startsWith("rep"), "the code is chosen by keyboard");
  await view.locator("select[name=code]").selectOption("repair");
  await view.locator("input[name=finished]").fill("2026-01-05T06:01:00");
  await view.locator("textarea[name=note]").fill("bearing replaced");
  await view.locator("button[type=submit]").click();
  await view.locator(".closed").waitFor({ timeout });
  const closed = await view.locator(".closed").innerText();
  check(closed.includes("repair") && closed.includes("confirmed") && closed.includes("bearing replaced"), `the order is closed: ${closed}`);
  await accessible(page, "a closed order");

  const answer = await page.evaluate(async (a) => (await fetch(`/api/v1/assets/${a}/service`)).json(), asset);
  check(answer.services.length === 1 && answer.services[0].finished_at === "2026-01-05T06:01:00Z", `the service counter is reset: ${JSON.stringify(answer)}`);
  check(page.complaints.length === 0, `nothing complains: ${page.complaints.join("; ")}`);
});
