// The page over a mock plant, in the states that are hard to bring about on a real one: states.mjs FULL EMPTY (their addresses)
import { accessible, check, open, seconds, withBrowser } from "./lib.mjs";

const [full, empty] = process.argv.slice(2);
const timeout = 20_000;
const phone = { viewport: { width: 390, height: 844 } };

/** Nothing may stick out to the side. */
async function fits(page, where) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(over <= 0, `${where}: no sideways scrolling`);
}

await withBrowser("states", async (browser) => {
  let page = await open(browser, `${full}#/skab/valve1/0/current`);
  await page.locator(".link-live").waitFor({ timeout });
  await page.locator(".sensors tbody tr").nth(9).waitFor({ timeout });
  await fits(page, "asset");
  await accessible(page, "asset");
  await page.locator(".strangers summary").click();
  await page.locator(".more").click();
  await page.locator(".counters table").first().waitFor({ timeout });
  await accessible(page, "everything unfolded");
  check(page.complaints.length === 0, `nothing complains: ${page.complaints.join("; ")}`);

  const mark = (id) => page.locator(`.leaf[href^="#/${id}"] .mark`).getAttribute("aria-label");
  check((await mark("skab/valve1/3")) === "bad quality", "a bad sensor marks its asset");
  check((await mark("skab/other/9")) === "stale", "a silent edge marks its asset");
  check((await mark("skab/valve1/7")) === "never a value", "a sensor without any value marks its asset");

  await page.locator('.leaf[href^="#/skab/other/11"]').click();
  await page.locator('tr[data-status="stale"]').first().waitFor({ timeout });
  const age = async () => seconds(await page.locator("tr[data-status=stale] .measured").first().innerText());
  const before = await age();
  await page.waitForFunction(
    ([sel, old]) => document.querySelector(sel)?.innerText !== old,
    ["tr[data-status=stale] .measured", await page.locator("tr[data-status=stale] .measured").first().innerText()], { timeout });
  check((await age()) > before, "the age of a stale value grows");
  check(await page.locator(".plot-note-low a").isVisible(), "the trend of a stale sensor offers a longer window");
  await accessible(page, "stale asset");

  await page.getByRole("searchbox").fill("nothing like this");
  await page.locator(".tree .empty").waitFor({ timeout });
  await accessible(page, "nothing found");
  await page.getByRole("searchbox").fill("");

  await page.goto(`${full}#/skab/valve1/nobody`);
  await page.getByText("There is no asset skab/valve1/nobody").waitFor({ timeout });
  await accessible(page, "unknown asset");

  await page.goto(`${full}#/skab/valve1/0/mode`);
  await page.getByText("This sensor sends text").waitFor({ timeout });
  await page.close();

  page = await open(browser, full, phone);
  await page.locator(".leaf").first().waitFor({ timeout });
  await fits(page, "phone, tree");
  await accessible(page, "phone, tree");
  await page.locator('.leaf[href^="#/skab/valve1/0"]').click();
  await page.locator(".sensors tbody tr").first().waitFor({ timeout });
  check(!(await page.locator(".tree").isVisible()), "phone: the asset takes the tree's place");
  await fits(page, "phone, asset");
  await accessible(page, "phone, asset");
  await page.locator(".back").click();
  check(await page.locator(".tree").isVisible(), "phone: and gives it back");
  await page.close();

  page = await open(browser, empty);
  await page.locator(".asset").getByText("No asset yet").waitFor({ timeout });
  await accessible(page, "no asset");
  await page.close();

  page = await open(browser, `${full}#/skab/valve1/0/current`);
  await page.locator(".link-live").waitFor({ timeout });
  await page.locator(".sensors tbody tr").first().waitFor({ timeout });
  await fetch(`${full}mock/lose`, { method: "POST" });
  await page.locator(".link-lost").waitFor({ timeout });
  const hatched = await page.locator(".sensors td.value").first().evaluate((e) => getComputedStyle(e).backgroundImage !== "none");
  check(hatched, "without a connection no value looks live");
  await accessible(page, "lost");
  await fetch(`${full}mock/return`, { method: "POST" });
  await page.locator(".link-live").waitFor({ timeout });
  check(!(await page.locator(".problems").isVisible()), "and all is well when it is back");
});
