// Attention maps of a sentence, drawn anew whenever something is changed.
import { ask } from "./engine.js";
import { figure } from "./map.js";

// Past this the window hides nothing.
const ALL = 12;

let chosen = 1;
let seed = 1;
let drawn = null;

function settings(form) {
  const { sentence, heads, project, positions, weights, scores, causal, window, temperature } = form.elements;
  const reach = Number(window.value);
  return {
    sentence: sentence.value,
    heads: Number(heads.value),
    project: project.value === "true",
    positions: positions.value,
    causal: causal.checked,
    window: reach === ALL ? null : reach,
    temperature: 10 ** (Number(temperature.value) / 20),
    weights: weights.value,
    seed,
    scores: scores.value === "true",
  };
}

function label(form) {
  const { window, temperature, reach, heat } = form.elements;
  const words = Number(window.value);
  reach.value = words === ALL ? "all words" : words === 0 ? "itself" : `${words} to each side`;
  heat.value = (10 ** (Number(temperature.value) / 20)).toFixed(2);
}

// Of all heads, the weight that a word has for the chosen one.
function mean({ weights, heads, words }, row, key) {
  const n = words.length;
  let sum = 0;
  for (let head = 0; head < heads; head++) sum += weights[(head * n + row) * n + key] ?? 0;
  return sum / heads;
}

function show(part) {
  const { words } = drawn;
  chosen = Math.min(chosen, words.length - 1);
  const buttons = [...part.querySelectorAll("#words button")];
  const shares = words.map((_, key) => mean(drawn, chosen, key));
  const most = Math.max(...shares, 1e-9);
  buttons.forEach((button, key) => {
    button.setAttribute("aria-pressed", key === chosen);
    button.tabIndex = key === chosen ? 0 : -1;
    button.style.setProperty("--weight", Math.max(0, shares[key] / most));
  });
  part.querySelectorAll("#maps figure").forEach((map) => map.choose(chosen));
  const order = shares.map((share, key) => [share, key]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const named = order.filter(([share]) => share > 0.005).map(([share, key]) =>
    `“${words[key]}” ${share.toFixed(2)}`);
  part.querySelector("#looks").textContent = named.length
    ? `“${words[chosen]}”, word ${chosen + 1}, looks at ${named.join(", ")} (mean of the heads)`
    : `“${words[chosen]}”, word ${chosen + 1}, sees nothing`;
}

function wordButtons(part) {
  const buttons = drawn.words.map((word, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: word });
    button.addEventListener("click", () => { chosen = i; show(part); });
    return button;
  });
  part.querySelector("#words").replaceChildren(...buttons);
}

function draw(part, map, milliseconds) {
  const same = drawn && drawn.words.join("\n") === map.words.join("\n");
  drawn = map;
  if (!same) wordButtons(part);
  const choose = (row) => {
    chosen = row;
    show(part);
  };
  const figures = Array.from({ length: map.heads }, (_, head) => figure(map, head, choose));
  part.querySelector("#maps").replaceChildren(...figures);
  const heads = map.heads === 1 ? "1 head" : `${map.heads} heads`;
  part.querySelector("#ran").textContent =
    `${heads}, ${map.words.length} words, on the GPU and back in ${milliseconds} ms`;
  part.querySelector("#plan").textContent = map.plan;
  part.querySelector("#call").textContent = map.call;
  show(part);
}

export function see(part) {
  const form = part.querySelector("form");
  const again = part.querySelector("#again");
  let wanted = null;
  let running = false;
  // Only the newest settings are asked for; what was typed meanwhile is skipped.
  async function update() {
    label(form);
    again.hidden = form.elements.weights.value !== "sample";
    wanted = settings(form);
    if (running) return;
    running = true;
    while (wanted) {
      const asked = wanted;
      wanted = null;
      part.classList.add("busy");
      if (!drawn) part.querySelector("#ran").textContent = "Compiling kernels and trying them on a known answer …";
      const start = performance.now();
      try {
        const map = JSON.parse(await ask("see", JSON.stringify(asked)));
        draw(part, map, Math.round(performance.now() - start));
      } catch (error) {
        part.querySelector("#ran").textContent = error.message;
      }
    }
    part.classList.remove("busy");
    running = false;
  }
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  again.addEventListener("click", () => { seed++; update(); });
  part.querySelector("#words").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step || !drawn) return;
    event.preventDefault();
    chosen = (chosen + step + drawn.words.length) % drawn.words.length;
    show(part);
    part.querySelectorAll("#words button")[chosen].focus();
  });
  part.hidden = false;
  update();
}
