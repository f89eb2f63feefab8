// Attention maps of a sentence, drawn anew whenever something is changed.
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

// Of all heads, the mean of the weight or score that a word has for the chosen one; null where it is hidden, which all
// heads agree in.
function mean({ weights, heads, words }, row, key) {
  const n = words.length;
  let sum = 0;
  for (let head = 0; head < heads; head++) {
    const value = weights[(head * n + row) * n + key];
    if (value === null) return null;
    sum += value;
  }
  return sum / heads;
}

// Where the chosen word looks. Weights of next to nothing are not named; scores count from no zero.
function looks({ words, scores }, shares) {
  const who = `“${words[chosen]}”, word ${chosen + 1},`;
  const order = shares.map((share, key) => ({ share, key })).filter(({ share }) => share !== null)
    .filter(({ share }) => scores || share > 0.005).sort((a, b) => b.share - a.share).slice(0, 3);
  if (!order.length) return `${who} sees nothing`;
  const named = order.map(({ share, key }) => `“${words[key]}” ${share.toFixed(2)}`).join(", ");
  return `${who} ${scores ? "scores highest with" : "looks at"} ${named} (mean of the heads)`;
}

// From 0 to 1: weights by the largest; scores from the lowest that is visible, and even the lowest is tinted.
function tints(shares, scores) {
  const visible = shares.filter((share) => share !== null);
  const most = Math.max(...visible, scores ? -Infinity : 1e-9);
  const least = scores ? Math.min(...visible) : 0;
  const tint = (share) => (most > least ? (share - least) / (most - least) : 1);
  return shares.map((share) => (share === null ? 0 : scores ? 0.1 + 0.9 * tint(share) : Math.max(0, tint(share))));
}

function show(part) {
  const { words } = drawn;
  chosen = Math.min(chosen, words.length - 1);
  const buttons = [...part.querySelectorAll("#words button")];
  const shares = words.map((_, key) => mean(drawn, chosen, key));
  const strengths = tints(shares, drawn.scores);
  buttons.forEach((button, key) => {
    button.setAttribute("aria-pressed", key === chosen);
    button.tabIndex = key === chosen ? 0 : -1;
    button.style.setProperty("--weight", strengths[key]);
  });
  part.querySelectorAll("#maps figure").forEach((map) => map.choose(chosen));
  part.querySelector("#looks").textContent = looks(drawn, shares);
}

function wordButtons(part) {
  const buttons = drawn.words.map((word, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: word });
    button.addEventListener("click", () => { chosen = i; show(part); });
    return button;
  });
  part.querySelector("#words").replaceChildren(...buttons);
}

function draw(part, map) {
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
  const n = map.words.length;
  const words = map.of > n ? `the first ${n} of ${map.of} words` : `${n} words`;
  const took = map.milliseconds < 10 ? map.milliseconds.toFixed(1) : map.milliseconds.toFixed(0);
  part.querySelector("#ran").textContent = `${heads}, ${words}, to the GPU and back in ${took} ms`;
  part.querySelector("#plan").textContent = map.plan;
  part.querySelector("#call").textContent = map.call;
  show(part);
}

export function see(part, engine) {
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
      const ran = part.querySelector("#ran");
      if (!drawn) ran.textContent = "Compiling kernels and trying them on a known answer …";
      try {
        const map = JSON.parse(await engine.ask("see", JSON.stringify(asked)));
        draw(part, { ...map, scores: asked.scores });
        part.classList.remove("stale");
      } catch (error) {
        // What is still drawn answers what was asked before.
        part.classList.add("stale");
        ran.textContent = error.message;
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
