// Compiles the I-th of every N WGSL files of a folder with Dawn's Tint: node check.mjs FOLDER I N
import { readFileSync, readdirSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const [folder, part, parts] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
// Dawn's null backend compiles for every feature and runs nothing. Kept in a variable: it must outlive its device.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
const wanted = ['subgroups', 'shader-f16'].filter((feature) => adapter.features.has(feature));
const device = await adapter.requestDevice({ requiredFeatures: wanted });

let accepted = 0;
let refused = 0;
for (const file of readdirSync(folder).sort().filter((_, i) => i % parts === part)) {
  const code = readFileSync(`${folder}/${file}`, 'utf8');
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  await device.popErrorScope();
  const error = messages.find((message) => message.type === 'error');
  if (!error) {
    accepted += 1;
    continue;
  }
  refused += 1;
  if (refused <= 10) {
    const [key, line] = [code.split('\n')[0], code.split('\n')[error.lineNum - 1]];
    console.log(`${key}\n  line ${error.lineNum}: ${line}\n  ${error.message}`);
  }
}
console.log(`Tint, part ${part + 1} of ${parts}: ${accepted} accepted, ${refused} refused`);
process.exit(refused > 0 || accepted === 0 ? 1 : 0);
