// One head's map: a picture with a square for each weight, rows are queries.
import { shape } from "./svg.js";

const LETTER = 6.6;

const short = (word) => (word.length > 11 ? `${word.slice(0, 10)}…` : word);

// Opacity of a value: weights by the largest of the map, but at least by 1/2; scores by the largest of either sign.
function strength(values) {
  const sizes = values.filter((x) => x !== null).map(Math.abs);
  const most = Math.max(0.5, ...sizes);
  return (x) => (x === null ? 0 : Math.abs(x) / most);
}

function said(value) {
  return value === null ? "hidden" : value.toFixed(3);
}

export function figure({ words, weights, heads }, head, choose) {
  const n = words.length;
  const values = weights.slice(head * n * n, (head + 1) * n * n);
  const opacity = strength(values);
  const cell = n > 16 ? 14 : n > 8 ? 20 : 26;
  const margin = Math.max(...words.map((word) => short(word).length)) * LETTER + 8;
  const size = margin + n * cell + 1;
  const svg = shape("svg", { viewBox: `0 0 ${size} ${size}`, width: size, role: "img" });
  svg.setAttribute("aria-label", `Map of head ${head + 1}; choose a word above to hear where it looks`);
  words.forEach((word, i) => {
    const middle = margin + (i + 0.5) * cell;
    svg.append(shape("text", { x: margin - 5, y: middle + 4, "text-anchor": "end", class: "of-row" }, short(word)));
    svg.append(shape("text", { transform: `translate(${middle + 4} ${margin - 5}) rotate(-90)` }, short(word)));
  });
  values.forEach((value, i) => {
    const [row, key] = [Math.floor(i / n), i % n];
    const at = { x: margin + key * cell, y: margin + row * cell, width: cell, height: cell };
    const kind = value !== null && value < 0 ? "cell below" : "cell";
    const square = shape("rect", { ...at, class: kind, "fill-opacity": opacity(value).toFixed(3) });
    square.append(shape("title", {}, `${words[row]} → ${words[key]}: ${said(value)}`));
    square.addEventListener("click", () => choose(row));
    svg.append(square);
  });
  svg.append(shape("rect", { x: margin, y: margin, width: n * cell, height: n * cell, class: "frame" }));
  const row = shape("rect", { x: margin, width: n * cell, height: cell, class: "row" });
  svg.append(row);
  const made = document.createElement("figure");
  made.append(Object.assign(document.createElement("figcaption"), {
    textContent: heads === 1 ? "One head" : `Head ${head + 1}`,
  }), svg);
  const labels = [...svg.querySelectorAll(".of-row")];
  made.choose = (chosen) => {
    row.setAttribute("y", margin + chosen * cell);
    labels.forEach((text, i) => text.classList.toggle("chosen", i === chosen));
  };
  return made;
}
