// Which plan answered and what it cost: whatever the server says of it, laid out for a reader.

import { element } from "./cards.js";

// What the strategies that a plan may name do; one that is not here is shown by its name.
const MEANING = {
  exact: "every vector that may be in the answer was compared, so nothing closer was missed",
  bm25: "records that hold the words, ranked by how rare the words are and how often they occur",
  "reciprocal rank fusion": "the rankings by meaning and by words were joined by their ranks",
};
const MODES = { vector: "by meaning", text: "by words", hybrid: "by meaning and words", like: "like a record", browse: "without a query, in order" };
const OWN = new Set(["mode", "strategy", "stages_ms", "version"]);

export const duration = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 2000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const words = (name) => String(name).replaceAll("_", " ");

function said(value) {
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(said).join(value.some((one) => one !== null && typeof one === "object") ? "; " : ", ");
  if (value !== null && typeof value === "object") return Object.entries(value).map(([key, one]) => `${words(key)} ${said(one)}`).join(", ");
  return value === null ? "none" : String(value);
}

// Nested objects become one line each: {filter: {matches: 3}} is "filter · matches: 3".
function lines(plan, before = "") {
  return Object.entries(plan).flatMap(([key, value]) => {
    const name = before ? `${before} · ${words(key)}` : words(key);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? lines(value, name) : [[name, said(value)]];
  });
}

export const strategyOf = (plan) => (typeof plan.strategy === "string" ? words(plan.strategy) : plan.strategy ? said(Object.values(plan.strategy)) : "");

export function drawPlan(place, result) {
  const { plan } = result;
  const meaning = MEANING[plan.strategy];
  const sentence = element("p", {}, "Searched ", element("strong", { textContent: MODES[plan.mode] ?? words(plan.mode ?? "") }),
    ...(plan.strategy ? [", plan ", element("strong", { textContent: strategyOf(plan) }), meaning ? `: ${meaning}.` : "."] : ["."]),
    ` ${duration(result.milliseconds)} in all, on version ${plan.version} of the collection.`);
  const stages = Object.entries(plan.stages_ms ?? {}).filter(([, cost]) => typeof cost === "number");
  const most = Math.max(0.001, ...stages.map(([, cost]) => cost));
  const table = element("table", { className: "stages" }, element("caption", { className: "hidden", textContent: "What each stage cost" }), element("tbody", {}, ...stages.map(([stage, cost]) => {
    const bar = element("i", { className: "bar" });
    bar.style.width = `${Math.max(0.5, (100 * cost) / most)}%`;
    return element("tr", {}, element("th", { scope: "row", textContent: words(stage) }), element("td", { textContent: duration(cost) }), element("td", { className: "wide" }, bar));
  })));
  const rest = lines(Object.fromEntries(Object.entries(plan).filter(([key]) => !OWN.has(key))));
  const list = element("dl", { className: "fields compact" }, ...rest.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  place.replaceChildren(sentence, ...(stages.length ? [table] : []), ...(rest.length ? [list] : []));
}
