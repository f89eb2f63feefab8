// Calls under the device's roof: how fast they are, by how much arithmetic they have for each byte.
import { shape } from "./svg.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 320, 56, 16, 16, 40];

// A number as people read it.
export function figures(x) {
  if (x >= 100) return Math.round(x).toLocaleString("en");
  return String(Number(x.toPrecision(x >= 1 ? 3 : 2)));
}

const decades = (low, high) => {
  const all = [];
  for (let x = Math.floor(Math.log10(low)); x <= Math.ceil(Math.log10(high)); x++) all.push(10 ** x);
  return all;
};

// Logarithmic from the first decade to the last.
function scale(marks, from, to) {
  const [low, high] = [Math.log10(marks[0]), Math.log10(marks.at(-1))];
  return (x) => from + (Math.log10(x) - low) / (high - low) * (to - from);
}

export function chart(roofline, rows) {
  const peak = roofline.f32_gflops;
  const gbps = Math.max(roofline.read_gbps, roofline.cached_gbps);
  const ridge = peak / gbps;
  const across = [ridge, ...rows.map((row) => row.intensity)];
  const up = [peak, ...rows.map((row) => row.gflops)];
  // A clock too coarse for a call gives no number, and there is no place for that.
  if (![...across, ...up].every((value) => Number.isFinite(value) && value > 0)) return document.createTextNode("");
  const wide = decades(Math.min(...across) / 2, Math.max(...across) * 2);
  const high = decades(Math.min(...up) / 1.5, Math.max(...up));
  const x = scale(wide, LEFT, WIDTH - RIGHT);
  const y = scale(high, HEIGHT - BOTTOM, TOP);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", "The calls of the table under the limits of the device, by FLOP for each byte");
  for (const mark of wide) {
    svg.append(shape("line", { x1: x(mark), x2: x(mark), y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" }));
    svg.append(shape("text", { x: x(mark), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, figures(mark)));
  }
  for (const mark of high) {
    svg.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(mark), y2: y(mark), class: "grid" }));
    svg.append(shape("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, figures(mark)));
  }
  const [middle, height] = [(LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2];
  svg.append(shape("text", { x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, "FLOP for each byte"));
  const upright = `translate(12 ${height}) rotate(-90)`;
  svg.append(shape("text", { transform: upright, "text-anchor": "middle" }, "GFLOP/s"));
  // From the lower edge or the left one, whichever memory's slope leaves last, to the roof, and along it.
  const begin = Math.max(wide[0], high[0] / gbps);
  const roof = [[begin, begin * gbps], [ridge, peak], [wide.at(-1), peak]];
  svg.append(shape("polyline", { points: roof.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), class: "roof" }));
  rows.forEach((row, i) => {
    const point = shape("g", { class: "point" });
    point.append(
      shape("title", {}, `${row.title}: ${figures(row.gflops)} GFLOP/s`),
      shape("circle", { cx: x(row.intensity), cy: y(row.gflops), r: 9 }),
      shape("text", { x: x(row.intensity), y: y(row.gflops) + 4, "text-anchor": "middle" }, i + 1));
    svg.append(point);
  });
  return svg;
}
