// Opens the device; then the parts of the page begin.
import { bench } from "./bench.js";
import { browser } from "./browser.js";
import { Engine } from "./engine.js";
import { see } from "./see.js";
import { verify } from "./verify.js";

const place = (id) => document.getElementById(id);

function stop(why) {
  place("device").hidden = true;
  place("why").textContent = why;
  place("missing").hidden = false;
}

function describe(adapter) {
  const kind = adapter.type === "cpu" ? ", a software adapter" : "";
  place("device").textContent = `${adapter.name}${kind} · WebGPU in ${adapter.driver} ${adapter.driver_info}`;
  const table = place("about").querySelector("table");
  for (const [name, value] of Object.entries(adapter.limits)) {
    const row = table.insertRow();
    row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: name.replaceAll("_", " ") }));
    row.insertCell().textContent = value.toLocaleString("en");
  }
  place("about").querySelector(".names").textContent = adapter.features.join(", ") || "No optional feature.";
  place("about").hidden = false;
}

async function begin() {
  if (!navigator.gpu) {
    const secure = window.isSecureContext ? "" : " This page came by http, where browsers hide WebGPU.";
    return stop(`This browser offers no WebGPU to this page, and the kernels need it.${secure}`);
  }
  const found = await navigator.gpu.requestAdapter().catch(() => null);
  if (!found) return stop("This browser has WebGPU, but gives no adapter: it knows no GPU here that it trusts.");
  const about = JSON.stringify(await browser(found.info));
  const seeing = new Engine("see", about);
  try {
    describe(JSON.parse(await seeing.ask("adapter")));
  } catch (error) {
    return stop(error.message);
  }
  see(place("see"), seeing);
  // Loaded when one of the two is begun.
  const checking = new Engine("check", about);
  verify(place("verify"), checking);
  bench(place("bench"), checking);
}

begin();
