// The engine's thread: the library runs here, so that the page answers while kernels are compiled and the reference
// computes. Asked `{id, method, args}`, it answers `{id, value}` or `{id, error}`.
import start, { Page } from "./heedful.js";

let page;

const methods = {
  async open(about) {
    await start({ module_or_path: new URL("heedful_bg.wasm", import.meta.url) });
    page = await Page.open(about);
    return page.adapter();
  },
  see: (settings) => page.see(settings),
  begin: (grid) => page.begin(grid),
  check: (place) => page.check(place),
  measure: () => page.measure(),
  time: (place) => page.time(place),
  reportHtml: () => page.report_html(),
  reportJson: () => page.report_json(),
};

// One at a time: a call may not begin while another holds the device's error scopes.
let last = Promise.resolve();
self.addEventListener("message", ({ data: { id, method, args } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, value: await methods[method](...args) });
    } catch (error) {
      self.postMessage({ id, error: error?.message ?? String(error) });
    }
  });
});
// What the module ends with, a panic for one, has no call that it could be the answer of.
self.addEventListener("unhandledrejection", (event) => self.postMessage({ ended: String(event.reason) }));
self.addEventListener("error", (event) => self.postMessage({ ended: event.message }));
