// The cases of a grid one after another, and the report of what they showed.
import { stoppable } from "./stop.js";

// Failures that are listed while cases run; the report has all.
const LISTED = 20;

function listed(part, row) {
  const list = part.querySelector("#wrong");
  if (list.children.length >= LISTED) return;
  const item = document.createElement("li");
  item.append(Object.assign(document.createElement("b"), { textContent: `${row.name} [${row.kernel}]` }), row.reason);
  list.append(item);
}

function counted(part, counts, done, cases, seconds) {
  const word = (n, text, className) =>
    Object.assign(document.createElement("span"), { className, textContent: `${n} ${text}` });
  const left = done > 4 && done < cases ? `, about ${duration(seconds / done * (cases - done))} left` : "";
  part.querySelector(".counts").replaceChildren(
    `${done} of ${cases} cases: `, word(counts.pass, "right", "right"), ", ",
    word(counts.fail, "wrong", counts.fail ? "bad" : ""), ", ",
    `${counts.unsupported} not supported${counts.expected_fail ? `, ${counts.expected_fail} known` : ""}${left}`);
}

function duration(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

// The page that the library writes, in a frame of its own; as high as it is.
function frame(iframe, html) {
  if (iframe.src) URL.revokeObjectURL(iframe.src);
  iframe.onload = () => {
    const root = iframe.contentDocument.documentElement;
    const fit = () => { iframe.style.height = `${root.offsetHeight + 2}px`; };
    new ResizeObserver(fit).observe(root);
    fit();
  };
  iframe.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
  iframe.hidden = false;
}

// A run that ended early is not taken for a whole one, wherever its report goes.
const fileName = ({ done, cases }) => `heedful-browser${done < cases ? `-${done}-of-${cases}` : ""}.json`;

function save(json, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([json], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Runs cases until all are done or it is stopped, and counts in `extent` those that ran.
async function run(part, engine, grid, extent, stopped) {
  part.querySelector(".now").textContent = "loading the cases and the reference …";
  const names = JSON.parse(await engine.ask("begin", grid));
  extent.cases = names.length;
  const counts = { pass: 0, fail: 0, expected_fail: 0, unsupported: 0 };
  const bar = part.querySelector("progress");
  const start = performance.now();
  let slowest = { name: "", seconds: 0 };
  for (let i = 0; i < names.length && !stopped(); i++) {
    part.querySelector(".now").textContent = names[i];
    const began = performance.now();
    const rows = JSON.parse(await engine.ask("check", i));
    const seconds = (performance.now() - began) / 1000;
    if (seconds > slowest.seconds) slowest = { name: names[i], seconds };
    for (const row of rows) {
      counts[row.status]++;
      if (row.status === "fail") listed(part, row);
    }
    extent.done = i + 1;
    bar.value = (i + 1) / names.length;
    counted(part, counts, i + 1, names.length, (performance.now() - start) / 1000);
  }
  const total = duration((performance.now() - start) / 1000);
  const slow = `the slowest case took ${slowest.seconds.toFixed(1)} s: ${slowest.name}`;
  part.querySelector(".now").textContent = `${stopped() ? "stopped" : "done"} after ${total}; ${slow}`;
}

// Shows what was found, however the run ended.
async function reported(part, engine, extent) {
  if (!extent.cases) return;
  frame(part.querySelector("#report"), await engine.ask("report_html"));
  const { done, cases } = extent;
  const heading = part.querySelector("#extent");
  heading.textContent = done < cases ? `Report of ${done} of ${cases} cases: the run ended early`
    : `Report of all ${cases} cases`;
  for (const name of ["#extent", "#download", "#merge"]) part.querySelector(name).hidden = false;
}

export function verify(part, engine) {
  const [form, halt, download] = ["#start", "#halt", "#download"].map((name) => part.querySelector(name));
  let extent = { done: 0, cases: 0 };
  stoppable(form, halt, async (stopped) => {
    for (const name of ["#download", "#report", "#extent", "#merge"]) part.querySelector(name).hidden = true;
    part.querySelector("#wrong").replaceChildren();
    part.querySelector("#progress").hidden = false;
    extent = { done: 0, cases: 0 };
    const say = (error) => { part.querySelector(".now").textContent = error.message; };
    await run(part, engine, form.elements.grid.value, extent, stopped).catch(say);
    await reported(part, engine, extent).catch(say);
  });
  download.addEventListener("click", async () => save(await engine.ask("report_json"), fileName(extent)));
  part.hidden = false;
}
