// What the device can do, and what a few calls make of it.
import { chart, figures } from "./roofline.js";
import { stoppable } from "./stop.js";

const LIMITS = [
  ["f32_gflops", "f32", "GFLOP/s"], ["f16_gflops", "f16", "GFLOP/s"], ["read_gbps", "memory", "GB/s"],
  ["cached_gbps", "4 MiB again and again", "GB/s"],
  ["dispatch_us", "a dispatch", "µs"], ["submit_us", "a submission", "µs"],
];
const OF = { compute: "arithmetic", memory: "memory", dispatch: "dispatches" };

function limits(list, roofline) {
  list.replaceChildren();
  for (const [name, title, unit] of LIMITS) {
    if (roofline[name] == null) continue;
    const pair = document.createElement("div");
    pair.append(
      Object.assign(document.createElement("dt"), { textContent: title }),
      Object.assign(document.createElement("dd"), { textContent: `${figures(roofline[name])} ${unit}` }));
    list.append(pair);
  }
  list.hidden = false;
}

function add(body, row, number) {
  const line = body.insertRow();
  line.append(Object.assign(document.createElement("th"), { scope: "row", textContent: number }));
  const call = line.insertCell();
  call.append(row.title, Object.assign(document.createElement("small"), { textContent: row.call }));
  const share = `${Math.round(100 * row.share)} %`;
  const cells = [row.path, figures(row.milliseconds), figures(row.gflops), share, OF[row.limit]];
  for (const text of cells) line.insertCell().textContent = text;
}

async function run(part, engine, stopped) {
  const now = part.querySelector(".now");
  const body = part.querySelector("tbody");
  now.textContent = "measuring the device, up to half a minute …";
  const { roofline, calls } = JSON.parse(await engine.ask("measure"));
  limits(part.querySelector("#limits"), roofline);
  const rows = [];
  for (let i = 0; i < calls.length && !stopped(); i++) {
    now.textContent = `${i + 1} of ${calls.length}: ${calls[i]} …`;
    rows.push(JSON.parse(await engine.ask("time", i)));
    add(body, rows[i], i + 1);
    part.querySelector(".wide").hidden = false;
    part.querySelector("#roofline").replaceChildren(chart(roofline, rows));
  }
  now.textContent = stopped() ? `stopped after ${rows.length} of ${calls.length} calls` : `${rows.length} calls timed`;
}

export function bench(part, engine) {
  const now = part.querySelector(".now");
  stoppable(part.querySelector("form"), part.querySelector(".halt"), async (stopped) => {
    for (const name of ["#limits", ".wide"]) part.querySelector(name).hidden = true;
    for (const name of ["tbody", "#roofline"]) part.querySelector(name).replaceChildren();
    await run(part, engine, stopped).catch((error) => { now.textContent = error.message; });
  });
  part.hidden = false;
}
