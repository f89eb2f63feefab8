// A thread of the library's: it runs here, so that the page answers while kernels are compiled and the reference
// computes. Asked `{id, method, args}`, it answers `{id, value}` or `{id, error}`.
const classes = { see: "See", check: "Check" };

let part;

async function open(name, about) {
  const library = await import(`./heedful_${name}.js`);
  await library.default({ module_or_path: new URL(`heedful_${name}_bg.wasm`, import.meta.url) });
  part = await library[classes[name]].open(about);
}

const answer = (method, args) => (method === "open" ? open(...args) : part[method](...args));

// One at a time: a call may not begin while another holds the device's error scopes.
let last = Promise.resolve();
self.addEventListener("message", ({ data: { id, method, args } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, value: await answer(method, args) });
    } catch (error) {
      self.postMessage({ id, error: error?.message ?? String(error) });
    }
  });
});
// What the module ends with, a panic for one, has no call that it could be the answer of.
self.addEventListener("unhandledrejection", (event) => self.postMessage({ ended: String(event.reason) }));
self.addEventListener("error", (event) => self.postMessage({ ended: event.message }));
