// Verifies a grid with the page's module on Dawn: node dawn.mjs GRID REPORT
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, type } from 'node:os';
import { create, globals } from 'webgpu';

// See tests/browser.mjs: with initial values SwiftShader compiles several times as long.
const QUICK = 'disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension';
const gpu = create(process.env.HEEDFUL_DAWN === 'defaults' ? [] : [QUICK]);
// What wgpu asks for in a browser. The global keeps Dawn alive as long as its devices.
Object.assign(globalThis, globals, { Window: class {}, window: globalThis });
Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });

const here = new URL('.', import.meta.url);
const read = (name) => readFileSync(new URL(name, here));
const { default: start, Check } = await import('./heedful_check.mjs');
await start({ module_or_path: read('heedful_check_bg.wasm') });

const found = await gpu.requestAdapter();
if (!found) throw new Error('Dawn finds no adapter');
const { info } = found;
const page = await Check.open(JSON.stringify({
  adapter: info.description || info.device || 'an adapter without a name',
  browser: 'Dawn',
  version: JSON.parse(read('node_modules/webgpu/package.json')).version,
  host: { os: type(), cpu: `${cpus().length} threads, in Node` },
}));
const [, , grid, report] = process.argv;
const names = JSON.parse(page.begin(grid));
const times = [];
for (const [place, name] of names.entries()) {
  const began = performance.now();
  for (const { status, kernel, reason } of JSON.parse(await page.check(place))) {
    if (status === 'fail') console.log(`dawn: ${name}, ${kernel}: ${reason}`);
  }
  times.push({ name, seconds: (performance.now() - began) / 1000 });
}
writeFileSync(report, page.report_json());
const { pass, fail, unsupported } = JSON.parse(page.report_json()).totals;
const all = times.reduce((sum, { seconds }) => sum + seconds, 0);
const slowest = times.sort((a, b) => b.seconds - a.seconds).slice(0, 8);
console.log(`dawn: ${names.length} cases: ${pass} right, ${fail} wrong, ${unsupported} not supported`);
console.log(`dawn: ${all.toFixed(0)} s, ${times.filter(({ seconds }) => seconds > 3).length} cases over 3 s; the slowest:`);
slowest.forEach(({ name, seconds }) => console.log(`dawn:   ${seconds.toFixed(1)} s: ${name}`));
// Where nothing is supported nothing is wrong either. Dawn's threads would keep the process.
process.exit(fail === 0 && pass > names.length ? 0 : 1);
