"use strict";
// Lists of rows are made when an adapter is opened, a page at a time: thousands of rows at once would make
// the page slow to open and to print.
const PAGE = 200;
const [PASS, FAIL, KNOWN, UNSUPPORTED] = [0, 1, 2, 3];
const SYMBOLS = ["✓", "✗", "!", "–"];
const CLASSES = ["right", "wrong", "known", "unsupported"];
const data = JSON.parse(document.getElementById("rows").textContent);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(fields) {
  const [name, suite, kernel, status, reason, set, abs, rel, worst, ratio, ms, seed] = fields;
  const text = (i) => data.texts[i];
  return {
    name: text(name), suite: text(suite), kernel: text(kernel), status, reason: text(reason),
    features: data.sets[set], abs, rel, worst, ratio, ms, seed,
  };
}

function quoted(word) {
  if (/^[\w./:,+@=-]+$/.test(word)) return word;
  return /["$`\\!]/.test(word) ? `'${word.replaceAll("'", "'\\''")}'` : `"${word}"`;
}

function command(argument, r) {
  const cases = r.seed === null ? `--cases ${quoted("tests/golden/" + r.suite)}` : `--grid ${quoted(r.suite)}`;
  const seed = r.seed === null ? "" : ` --seed ${r.seed}`;
  return `heedful verify --adapter ${quoted(argument)} ${cases} --filter ${quoted(r.name)}${seed}`;
}

function line(argument, r) {
  const tr = element("tr", CLASSES[r.status]);
  const mark = element("td", CLASSES[r.status]);
  mark.append(element("b", "", SYMBOLS[r.status]));
  const what = element("td");
  what.append(element("span", "case", r.name), element("span", "kernel", r.kernel));
  if (r.reason) what.append(element("span", "why", r.reason));
  const number = (x, digits) => (x === null ? "" : x === 0 ? "0" : x.toExponential(digits));
  const ratio = element("td", "ratio", r.ratio === null ? "" : r.ratio.toFixed(3));
  ratio.style.setProperty("--part", `${Math.min(100, 100 * (r.ratio ?? 0))}%`);
  tr.append(mark, what, element("td", "", r.suite), element("td", "", number(r.abs, 2)),
    element("td", "", number(r.rel, 2)), element("td", "", r.worst ?? ""), ratio,
    element("td", "", r.ms === null ? "" : r.ms.toFixed(2)));
  tr.title = "how to run this row again";
  tr.addEventListener("click", () => {
    const shown = what.querySelector("pre");
    if (!shown) what.append(element("pre", "", command(argument, r)));
    else if (!getSelection().toString()) shown.remove();
  });
  return tr;
}

function select(choices) {
  const made = element("select");
  choices.forEach(([value, text]) => made.append(new Option(text, value)));
  return made;
}

// The list of one adapter: filled on first use, filtered by text, status and feature.
function list(place) {
  const { argument, rows } = data.adapters[place.dataset.adapter];
  const all = rows.map(row);
  const tools = element("div", "tools");
  const filter = Object.assign(element("input"), { type: "search", placeholder: "Case, kernel or reason" });
  filter.setAttribute("aria-label", "Filter rows by case, kernel or reason");
  const count = (status) => all.filter((r) => r.status === status).length;
  const status = select([["", "any status"], ...["right", "wrong", "known failures", "not supported"]
    .map((name, i) => [i, `${name} (${count(i)})`])]);
  const feature = select([["", "any feature"], ...data.features.map((name, i) => [i, name])
    .filter(([i]) => all.some((r) => r.features.includes(i)))]);
  const order = select([["", "failures first"], ["ratio", "worst ratio first"], ["ms", "slowest first"]]);
  const shown = element("small");
  tools.append(filter, status, feature, order, shown);
  const table = element("table", "list");
  const head = table.createTHead().insertRow();
  ["", "Case and kernel", "Suite", "Max abs", "Max rel", "Row", "Ratio", "ms"]
    .forEach((name) => head.append(element("th", "", name)));
  const body = table.createTBody();
  const more = element("button");
  const rank = { [FAIL]: 0, [KNOWN]: 1, [PASS]: 2, [UNSUPPORTED]: 3 };
  let matching = [];
  function extend() {
    const from = body.rows.length;
    body.append(...matching.slice(from, from + PAGE).map((r) => line(argument, r)));
    const left = matching.length - body.rows.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
  }
  function update() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = all.filter((r) => {
      const text = `${r.name} ${r.kernel} ${r.reason} ${r.suite}`.toLowerCase();
      return (status.value === "" || r.status === Number(status.value))
        && (feature.value === "" || r.features.includes(Number(feature.value)))
        && words.every((word) => text.includes(word));
    });
    const key = order.value;
    matching.sort((a, b) => (key ? (b[key] ?? -1) - (a[key] ?? -1) : rank[a.status] - rank[b.status]));
    shown.textContent = `${matching.length} of ${all.length} rows`;
    body.replaceChildren();
    extend();
  }
  [filter, status, feature, order].forEach((tool) => tool.addEventListener("input", update));
  more.addEventListener("click", extend);
  place.append(tools, table, more);
  place.show = (wanted) => {
    filter.value = "";
    status.value = "";
    feature.value = wanted;
    update();
  };
  update();
}

function open(details) {
  const place = details.querySelector(".rows");
  if (!place.show) list(place);
  return place;
}

// `#adapter-1` opens an adapter, `#adapter-1-feature-12` also chooses a feature there.
function follow() {
  const found = location.hash.match(/^#(adapter-\d+)(?:-feature-(\d+))?$/);
  const details = found && document.getElementById(found[1]);
  if (!details) return;
  details.open = true;
  const place = open(details);
  if (found[2] !== undefined) place.show(found[2]);
  (found[2] === undefined ? details : place).scrollIntoView();
}

document.querySelectorAll("details.adapter")
  .forEach((details) => details.addEventListener("toggle", () => details.open && open(details)));
addEventListener("hashchange", follow);
follow();
