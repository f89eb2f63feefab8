// What a report says of the machine, as far as a browser tells.

// The brand that is no filler and not the engine that many share.
function brand() {
  const brands = navigator.userAgentData?.brands ?? [];
  const real = brands.filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  return real.find(({ brand }) => brand !== "Chromium") ?? real[0];
}

function fromUserAgent() {
  const agent = navigator.userAgent;
  const found = agent.match(/(Firefox|Edg|OPR|Chrome)\/([\d.]+)/) ?? agent.match(/Version\/()([\d.]+).*Safari/);
  return { browser: found ? found[1] || "Safari" : "a browser", version: found?.[2] ?? "" };
}

async function named() {
  const main = brand();
  if (!main) return fromUserAgent();
  const full = await navigator.userAgentData.getHighEntropyValues(["fullVersionList"]).catch(() => ({}));
  const same = full.fullVersionList?.find(({ brand }) => brand === main.brand);
  return { browser: main.brand, version: (same ?? main).version };
}

function system() {
  if (navigator.userAgentData?.platform) return navigator.userAgentData.platform;
  const found = navigator.userAgent.match(/Android|iPhone|iPad|Mac OS X|Windows|CrOS|Linux/);
  return found ? found[0] : "not told";
}

export async function browser(info) {
  const words = [info.vendor, info.architecture, info.description || info.device].filter(Boolean);
  const adapter = [...new Set(words)].join(" ") || "an adapter without a name";
  const cpu = `${navigator.hardwareConcurrency ?? "?"} threads, in a browser`;
  return { adapter, ...await named(), host: { os: system(), cpu } };
}
