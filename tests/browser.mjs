// Does in a browser what a visitor does: node browser.mjs PAGE OUT CHROMIUM GRID
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { chromium } from 'playwright-core';

const [page, out, executablePath, grid] = process.argv.slice(2);
const MINUTE = 60_000;
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };

// Below /planted the engine's worker changes a kernel's text before the browser compiles it.
const PLANT = `
const create = GPUDevice.prototype.createShaderModule;
GPUDevice.prototype.createShaderModule = function (descriptor) {
  const wrong = descriptor.code.replace(/(const LOG2_E[^;]*?)1\\.442\\d*/, '$11.45');
  return create.call(this, descriptor.label.startsWith('fused_forward/') ? { ...descriptor, code: wrong } : descriptor);
};
`;

// Below /lost the test can destroy the device, and have no other given.
const LOSE = `
const request = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...wanted) {
  if (self.none) throw new DOMException('none is left', 'OperationError');
  return self.device = await request.apply(this, wanted);
};
`;
const CHANGES = { planted: PLANT, lost: LOSE };

function serve() {
  const server = createServer((request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    const [, changed, file] = path.match(/^\/(?:(planted|lost)\/)?(.*)/);
    const name = file || 'index.html';
    try {
      let body = readFileSync(join(page, name.replaceAll('..', '')));
      if (changed && name === 'worker.js') body = body + CHANGES[changed];
      response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'text/plain' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((ready) => server.listen(0, '127.0.0.1', () => ready(server)));
}

// Dawn zeroes a workgroup's memory by a loop, not by an initial value, of which SwiftShader makes a store for each
// element: 54 s instead of 129 for the cases of tests/dawn.sh swiftshader (HEEDFUL_DAWN=defaults).
const DAWN = 'use_vulkan_zero_initialize_workgroup_memory_extension';

function launch() {
  return chromium.launch({
    executablePath,
    args: [
      '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--no-sandbox', '--disable-dev-shm-usage',
      `--disable-dawn-features=${DAWN}`,
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
    ],
  });
}

const started = performance.now();
const say = (text) => console.log(`browser: ${((performance.now() - started) / 1000).toFixed(0)} s: ${text}`);

async function opened(context, address) {
  const tab = await context.newPage();
  tab.setDefaultTimeout(2 * MINUTE);
  tab.on('pageerror', (error) => say(`error on the page: ${error.message}`));
  tab.on('console', (message) => message.type() === 'error' && say(`console: ${message.text()}`));
  await tab.goto(address);
  await tab.waitForSelector('#see:not([hidden]), #missing:not([hidden])');
  return tab;
}

// The map of a head as numbers between 0 and 1, what is drawn.
async function map(tab, head = 0) {
  await tab.waitForSelector('#see:not(.busy) figure');
  const strengths = await tab.locator('#maps figure').nth(head).locator('.cell')
    .evaluateAll((cells) => cells.map((cell) => Number(cell.getAttribute('fill-opacity'))));
  const n = Math.sqrt(strengths.length);
  return Array.from({ length: n }, (_, row) => strengths.slice(row * n, (row + 1) * n));
}

async function change(tab, action) {
  await action();
  // It is asked for at once; busy ends when the newest is drawn.
  await tab.waitForSelector('#see:not(.busy) figure');
}

async function sees(tab) {
  assert.match(await tab.textContent('#device'), /WebGPU in/);
  await change(tab, () => tab.fill('[name=sentence]', 'I saw a saw'));
  assert.equal(await tab.locator('#maps figure').count(), 4, 'a map for each head');
  let rows = await map(tab);
  assert.equal(rows.length, 4);
  assert.deepEqual(rows[1], rows[3], 'one word, one row, as long as places are not told');
  assert.equal(rows[1][1], rows[1][3]);
  await change(tab, () => tab.selectOption('[name=positions]', 'added'));
  rows = await map(tab);
  assert.notDeepEqual(rows[1], rows[3], 'places tell them apart');
  await change(tab, () => tab.check('[name=causal]'));
  rows = await map(tab);
  assert.ok(rows.every((row, i) => row.every((x, j) => j <= i || x === 0)), `no word sees a later one: ${rows}`);
  assert.ok(rows[3].some((x, j) => j < 3 && x > 0));
  await change(tab, () => tab.uncheck('[name=causal]'));
  await change(tab, () => tab.selectOption('[name=weights]', 'hard'));
  for (const row of await map(tab)) assert.equal(row.filter((x) => x > 0).length, 1, `one key each: ${row}`);
  await change(tab, () => tab.selectOption('[name=weights]', 'sparsemax'));
  assert.ok((await map(tab)).flat().includes(0), 'sparsemax has zeros');
  await change(tab, () => tab.locator('[name=window]').fill('1'));
  rows = await map(tab);
  assert.ok(rows.every((row, i) => row.every((x, j) => Math.abs(i - j) <= 1 || x === 0)), `near words only: ${rows}`);
  await change(tab, () => tab.locator('[name=window]').fill('12'));
  await change(tab, () => tab.selectOption('[name=weights]', 'softmax'));
  await change(tab, () => tab.locator('[name=temperature]').fill('20'));
  assert.ok((await map(tab)).flat().every((x) => x > 0.2 && x < 0.8), 'heat makes it even');
  await change(tab, () => tab.locator('[name=temperature]').fill('0'));
  await change(tab, () => tab.selectOption('[name=heads]', '8'));
  assert.equal(await tab.locator('#maps figure').count(), 8);
  // The second word is chosen at first.
  await tab.locator('#words [aria-pressed=true]').focus();
  for (const word of ['a', 'saw', 'I']) {
    await tab.keyboard.press('ArrowRight');
    assert.equal(await tab.locator('#words [aria-pressed=true]').textContent(), word);
    assert.equal(await tab.evaluate(() => document.activeElement.textContent), word);
  }
  assert.match(await tab.textContent('#looks'), /“I”, word 1, looks at/);
  assert.match(await tab.textContent('#plan'), /staged/);
  await change(tab, () => tab.selectOption('[name=scores]', 'true'));
  await change(tab, () => tab.check('[name=causal]'));
  const highest = await tab.textContent('#looks');
  assert.match(highest, /^“I”, word 1, scores highest with “I” -?[\d.]+ \(/, 'and with none that is hidden');
  await change(tab, () => tab.uncheck('[name=causal]'));
  await change(tab, () => tab.selectOption('[name=scores]', 'false'));
  await change(tab, () => tab.fill('[name=sentence]', '   '));
  assert.match(await tab.textContent('#ran'), /no word/, 'an empty sentence is an error that is said');
  assert.equal(await tab.locator('#see.stale').count(), 1, 'and the old maps are no answer');
  await change(tab, () => tab.fill('[name=sentence]', 'saw '.repeat(30)));
  assert.equal(await tab.locator('#see.stale').count(), 0);
  assert.match(await tab.textContent('#ran'), /the first 28 of 30 words/);
  await change(tab, () => tab.fill('[name=sentence]', 'The animal didn’t cross the street because it was too tired.'));
  await change(tab, () => tab.selectOption('[name=heads]', '4'));
  assert.equal(await tab.locator('#maps figure').first().locator('.cell').count(), 144);
}

async function downloaded(tab, name) {
  const [file] = await Promise.all([tab.waitForEvent('download'), tab.click('#download')]);
  const whole = /of all/.test(await tab.textContent('#extent'));
  assert.match(file.suggestedFilename(), whole ? /^heedful-browser\.json$/ : /^heedful-browser-\d+-of-\d+\.json$/);
  await file.saveAs(join(out, name));
  return JSON.parse(readFileSync(join(out, name), 'utf8'));
}

// Seconds that each case took, until all are done.
async function watched(tab) {
  const taken = new Map();
  let [name, since, told] = ['', performance.now(), performance.now()];
  for (;;) {
    await tab.waitForTimeout(50);
    const now = performance.now();
    // In this order: what is offered at the end is there before the button to stop goes.
    const ended = await tab.isHidden('#halt');
    if (await tab.isVisible('#download')) return taken;
    assert.ok(!ended, `the run ended without a report: ${await tab.textContent('.now')}`);
    const current = await tab.textContent('.now');
    if (current !== name) {
      if (name) taken.set(name, (now - since) / 1000);
      [name, since] = [current, now];
    }
    assert.ok(now - since < 5 * MINUTE, `${name} took five minutes`);
    if (now - told > MINUTE / 2) {
      told = now;
      say(await tab.textContent('.counts'));
    }
  }
}

async function verified(tab) {
  await tab.selectOption('[name=grid]', grid);
  await tab.click('#start [type=submit]');
  const taken = await watched(tab);
  say(await tab.textContent('.counts'));
  say(await tab.textContent('.now'));
  const slow = [...taken].sort((a, b) => b[1] - a[1]).slice(0, 8);
  slow.forEach(([name, seconds]) => say(`  ${seconds.toFixed(1)} s: ${name}`));
  const report = await downloaded(tab, 'report.json');
  const failed = report.cases.filter((row) => row.status === 'fail');
  assert.deepEqual(failed.map((row) => `${row.name} [${row.kernel}] ${row.reason}`), [], 'all that ran is right');
  const [, done, cases] = (await tab.textContent('.counts')).match(/^(\d+) of (\d+) cases/).map(Number);
  assert.equal(done, cases, await tab.textContent('.now'));
  assert.equal(new Set(report.cases.map((row) => row.name)).size, cases, 'every case has a row');
  assert.ok(report.totals.pass > cases, `${report.totals.pass} rows of ${cases} cases passed`);
  assert.equal(await tab.textContent('#extent'), `Report of all ${cases} cases`);
  assert.equal(report.adapters[0].backend, 'webgpu');
  const frame = tab.frameLocator('#report');
  assert.match(await frame.locator('.headline').textContent(), /right/);
  await frame.locator('.matrix td a').first().click();
  await frame.locator('.rows .list tbody tr').first().waitFor();
  // A row says how it is run again.
  await frame.locator('.rows .list tbody tr').first().click();
  assert.match(await frame.locator('.rows pre').first().textContent(), /^heedful verify --adapter/);
}

// The device's limits, a row and a point for each call; what is stopped says so.
async function benched(tab) {
  const part = tab.locator('#bench');
  await part.locator('[type=submit]').click();
  const now = part.locator('.now');
  await now.filter({ hasText: /calls timed$/ }).waitFor({ timeout: 6 * MINUTE });
  const calls = Number((await now.textContent()).split(' ')[0]);
  assert.ok(calls >= 5, await now.textContent());
  const limits = await part.locator('#limits dd').allTextContents();
  assert.ok(limits.length >= 5 && limits.every((text) => parseFloat(text) > 0), limits.join(', '));
  const rows = await part.locator('tbody tr')
    .evaluateAll((rows) => rows.map((row) => [...row.cells].map((x) => x.textContent)));
  assert.equal(rows.length, calls);
  for (const [number, call, path, ms, gflops, share, of] of rows) {
    say(`  ${number} ${call} ${path} ${ms} ms ${gflops} GFLOP/s ${share} of ${of}`);
    assert.ok(parseFloat(ms) > 0 && parseFloat(gflops) > 0, call);
    // What was measured alone bounds what is measured beside other work, but for noise.
    assert.ok(parseFloat(share) > 0 && parseFloat(share) < 200, `${call}: ${share}`);
  }
  assert.equal(await part.locator('#roofline circle').count(), calls);
  await pictures(tab, 'bench');
  await part.locator('[type=submit]').click();
  await part.locator('tbody tr').first().waitFor({ timeout: 3 * MINUTE });
  await part.locator('.halt').click();
  await now.filter({ hasText: /^stopped after \d of/ }).waitFor();
}

async function planted(context, address) {
  const tab = await opened(context, address);
  await tab.click('#start [type=submit]');
  await tab.waitForSelector('#wrong li', { timeout: 4 * MINUTE });
  await tab.click('#halt');
  await tab.waitForSelector('#download:not([hidden])');
  assert.match(await tab.textContent('#extent'), /^Report of \d+ of \d+ cases: the run ended early$/);
  const report = await downloaded(tab, 'planted.json');
  const kernels = report.cases.filter((row) => row.status === 'fail').map((row) => row.kernel);
  assert.ok(kernels.length > 0 && kernels.every((kernel) => kernel.includes('fused_forward')), `blamed: ${kernels}`);
  await tab.frameLocator('#report').locator('.failure').first().waitFor();
  return tab;
}

// A device that is lost is another's turn; where there is no other, what was seen is reported.
async function loses(context, address) {
  const tab = await opened(context, address);
  await map(tab);
  // Each part of the page has a worker and a device of its own.
  const lose = (part, none) => tab.workers().find((worker) => worker.url().endsWith(part)).evaluate((none) => {
    self.none = none;
    self.device.destroy();
  }, none);
  await lose('see', false);
  await change(tab, () => tab.fill('[name=sentence]', 'I saw a saw'));
  assert.equal(await tab.locator('#see.stale').count(), 0, await tab.textContent('#ran'));
  assert.equal((await map(tab)).length, 4);
  await tab.click('#start [type=submit]');
  const done = async (cases) => tab.waitForFunction((cases) =>
    parseInt(document.querySelector('.counts').textContent, 10) >= cases, cases);
  await done(1);
  // A sentence is answered while cases run.
  await change(tab, () => tab.fill('[name=sentence]', 'I saw'));
  assert.equal((await map(tab)).length, 2);
  assert.ok(await tab.isVisible('#halt'), await tab.textContent('.now'));
  await lose('check', false);
  await done(3);
  await lose('check', true);
  await tab.waitForSelector('#download:not([hidden])');
  assert.match(await tab.textContent('#extent'), /the run ended early$/);
  const report = await downloaded(tab, 'lost.json');
  const names = report.cases.map((row) => row.name);
  for (const name of names) assert.ok(names.filter((x) => x === name).length >= 3, `every path of ${name} has a row`);
  assert.ok(report.totals.pass > 0 && report.totals.fail <= 2, JSON.stringify(report.totals));
  await tab.close();
}

async function pictures(tab, name) {
  for (const [size, width, window] of [['desktop', 1280, 900], ['phone', 390, 844]]) {
    for (const colorScheme of ['light', 'dark']) {
      await tab.emulateMedia({ colorScheme });
      await tab.setViewportSize({ width, height: window });
      await tab.waitForTimeout(300);
      const wider = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${name} on a ${size} is ${wider} pixels too wide`);
      const path = join(out, `${name}-${size}-${colorScheme}.png`);
      const height = Math.min(4000, await tab.evaluate(() => document.documentElement.scrollHeight));
      await tab.screenshot({ path, fullPage: true, clip: { x: 0, y: 0, width, height } });
    }
  }
}

const server = await serve();
const address = `http://localhost:${server.address().port}`;
const browser = await launch();
let status = 1;
try {
  const context = await browser.newContext({ acceptDownloads: true });
  const tab = await opened(context, `${address}/`);
  assert.equal(await tab.isVisible('#missing'), false, await tab.textContent('#why'));
  say(await tab.textContent('#device'));
  await sees(tab);
  assert.equal(tab.workers().length, 1, 'what verifies is not loaded to see');
  say('the map shows what is chosen');
  await pictures(tab, 'see');
  await benched(tab);
  say('calls are timed against the limits of the device');
  const wrong = await planted(context, `${address}/planted/`);
  await pictures(wrong, 'planted');
  await wrong.close();
  say('a planted fault is found and blamed');
  await loses(context, `${address}/lost/`);
  say('a lost device is replaced, and the report outlives it');
  const without = await browser.newContext();
  await without.addInitScript(() => delete Navigator.prototype.gpu);
  const bare = await opened(without, `${address}/`);
  assert.match(await bare.textContent('#why'), /no WebGPU/);
  await pictures(bare, 'without');
  say('without WebGPU the page says so');
  await verified(tab);
  await pictures(tab, 'verified');
  status = 0;
} catch (error) {
  console.error(error);
} finally {
  await browser.close();
  server.close();
}
process.exit(status);
