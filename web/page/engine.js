// The engine as the page sees it: promises of what its worker answers.
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let next = 0;
let ended = null;

function end(reason) {
  ended ??= new Error(`The engine ended: ${reason}. Load the page again.`);
  waiting.forEach(({ reject }) => reject(ended));
  waiting.clear();
}

worker.addEventListener("message", ({ data }) => {
  if (data.ended !== undefined) return end(data.ended);
  const { resolve, reject } = waiting.get(data.id) ?? {};
  waiting.delete(data.id);
  if (data.error !== undefined) reject?.(new Error(data.error));
  else resolve?.(data.value);
});
worker.addEventListener("error", (event) => end(event.message || "it could not be loaded"));

// Whether something is being done: what is asked now waits for it.
export const busy = () => waiting.size > 0;

export function ask(method, ...args) {
  if (ended) return Promise.reject(ended);
  return new Promise((resolve, reject) => {
    const id = next++;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, method, args });
  });
}
