// The library as the page sees it: promises of what a worker answers. `part` is the module that it loads, `see` or
// `check`; each has a device of its own, so that sentences can be changed while cases run.
export class Engine {
  #part;
  #about;
  #worker;
  #opened;
  #waiting = new Map();
  #next = 0;
  #ended = null;

  // `about` is JSON of what only the page knows of browser and adapter.
  constructor(part, about) {
    this.#part = part;
    this.#about = about;
  }

  // Loaded when it is first asked for something; after a failure the next asks again.
  async ask(method, ...args) {
    this.#opened ??= this.#post("open", this.#part, this.#about).catch((error) => {
      this.#opened = undefined;
      throw error;
    });
    await this.#opened;
    return this.#post(method, ...args);
  }

  #post(method, ...args) {
    if (this.#ended) return Promise.reject(this.#ended);
    this.#worker ??= this.#begin();
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, args });
    });
  }

  #begin() {
    // The part is in the address so that tools that list workers tell them apart.
    const worker = new Worker(`worker.js?${this.#part}`, { type: "module" });
    worker.addEventListener("message", ({ data }) => {
      if (data.ended !== undefined) return this.#end(data.ended);
      const { resolve, reject } = this.#waiting.get(data.id) ?? {};
      this.#waiting.delete(data.id);
      if (data.error !== undefined) reject?.(new Error(data.error));
      else resolve?.(data.value);
    });
    worker.addEventListener("error", (event) => this.#end(event.message || "it could not be loaded"));
    return worker;
  }

  #end(reason) {
    this.#ended ??= new Error(`The engine ended: ${reason}. Load the page again.`);
    this.#waiting.forEach(({ reject }) => reject(this.#ended));
    this.#waiting.clear();
  }
}
