// The search page: state in, address and results out.

import * as api from "./api.js";
import { card, element } from "./cards.js";
import { drawActive, drawFacets } from "./facets.js";
import { address, command, filterOf, readState, searchParameters } from "./state.js";
import { wordsOf } from "./text.js";

const at = (id) => document.getElementById(id);
const main = at("main");
const settings = JSON.parse(main.dataset.settings);
const query = at("query");
let state = readState(settings);
let running = null;
let counting = null;
let counted = null;
let counts = null;
let typing = false;
let timer = 0;
let likeTitle = "";

function showControls() {
  if (query.value !== state.query) query.value = state.query;
  for (const input of at("modes").querySelectorAll("input")) input.checked = input.value === state.mode;
  if (at("sort")) at("sort").value = state.sort;
  if (at("where").value !== state.where) at("where").value = state.where;
  if (state.where) at("expert").open = true;
  const like = at("like");
  like.hidden = !state.like || Boolean(state.query.trim());
  if (!like.hidden) {
    const stop = element("button", { className: "quiet small", type: "button", textContent: "Leave" });
    stop.addEventListener("click", () => change({ like: "" }));
    like.replaceChildren("Records like ", element("strong", { textContent: likeTitle || state.like }), " ", stop);
  }
}

// `step` is "push" for a new place in the history, "replace" while one is being typed.
function change(changes, step = "push") {
  state = { ...state, size: 10, ...changes };
  clearTimeout(timer);
  typing = step === "replace";
  const next = address(state, settings);
  if (step === "replace") history.replaceState(null, "", next);
  else if (next !== location.pathname + location.search) history.pushState(null, "", next);
  refresh();
}

function refresh() {
  showControls();
  sessionStorage.setItem("search:/c/" + encodeURIComponent(settings.name), location.pathname + location.search);
  drawActive(at("active"), at("active-count"), state, settings, toggle, () => change({ filters: new Map(), where: "" }));
  answer();
  count();
}

async function answer() {
  running?.abort();
  const own = (running = new AbortController());
  main.setAttribute("aria-busy", "true");
  const asked = state;
  try {
    const result = await api.search(settings.name, searchParameters(asked, settings), own.signal);
    if (own === running) show(result, asked);
  } catch (error) {
    if (error.name !== "AbortError" && own === running) fail(error.message);
  } finally {
    if (own === running) main.removeAttribute("aria-busy");
  }
}

async function count() {
  counting?.abort();
  const wheres = filterOf(state, settings);
  if (!settings.facets.length) return;
  if (counts) drawFacets(at("facet-groups"), counts, state, settings, toggle);
  if (wheres === counted) return;
  const own = (counting = new AbortController());
  const asked = state;
  const chosen = settings.facets.filter((facet) => asked.filters.get(facet.expression)?.size);
  const others = settings.facets.filter((facet) => !chosen.includes(facet));
  try {
    const answers = await Promise.all([
      others.length ? api.facets(settings.name, others.map((facet) => facet.expression), filterOf(asked, settings), own.signal) : {},
      ...chosen.map((facet) => api.facets(settings.name, [facet.expression], filterOf(asked, settings, facet.expression), own.signal)),
    ]);
    if (own !== counting) return;
    counted = wheres;
    counts = Object.assign({}, ...answers);
    drawFacets(at("facet-groups"), counts, state, settings, toggle);
  } catch (error) {
    if (error.name !== "AbortError" && own === counting) counted = null; // the search shows the same sentence
  }
}

function show(result, asked) {
  const words = wordsOf(asked.query);
  at("results").replaceChildren(...result.hits.map((hit) => card(hit, settings, words, { like: moreLike, choose })));
  at("status").className = "status";
  at("status").textContent = statusOf(result, asked);
  at("more").hidden = result.hits.length >= result.total || result.hits.length < asked.size || asked.size >= 200;
  const empty = at("empty");
  empty.hidden = result.hits.length > 0;
  if (!empty.hidden) {
    const filtered = Boolean(filterOf(asked, settings));
    empty.replaceChildren(
      element("h2", { textContent: result.total || filtered || asked.query.trim() ? "Nothing matches" : "This collection is empty" }),
      element("p", { textContent: filtered ? "Take a filter away, or use other words." : asked.query.trim() ? "Try other words, or search by meaning." : "Add records with: isometry index SOURCE --into DIR" }),
    );
  }
  at("plan").textContent = planOf(result);
  at("command").textContent = command(asked, settings);
}

function fail(message) {
  at("status").className = "status error";
  at("status").textContent = message;
  at("results").replaceChildren();
  at("empty").hidden = true;
  at("more").hidden = true;
}

const number = (value) => Number(value).toLocaleString("en");

function statusOf(result, asked) {
  const time = `${result.milliseconds < 10 ? result.milliseconds.toFixed(1) : Math.round(result.milliseconds)} ms`;
  const how = [result.plan.mode, result.plan.strategy].filter(Boolean).join(", ");
  const what = asked.query.trim() && asked.mode === "text" ? "with these words" : asked.query.trim() || asked.like ? "ranked" : "in the collection";
  const sorted = result.plan.sorted && result.plan.sorted.of < result.total ? ` · in order of date among the ${number(result.plan.sorted.of)} most relevant` : "";
  return `${number(result.total)} ${result.total === 1 ? "record" : "records"} ${filterOf(asked, settings) ? what + " under the filters" : what} · ${how} · ${time}${sorted}`;
}

function planOf(result) {
  const stages = Object.entries(result.plan.stages_ms ?? {}).map(([stage, cost]) => `${stage} ${cost.toFixed(1)} ms`);
  return `Plan: ${[result.plan.mode, result.plan.strategy].filter(Boolean).join(", ")}. ${stages.join(" · ")}. Version ${result.plan.version} of the collection. The same at the command line, where the collection's folder is:`;
}

function toggle(expression, value) {
  const filters = new Map([...state.filters].map(([name, values]) => [name, new Set(values)]));
  const values = filters.get(expression) ?? new Set();
  if (!values.delete(value)) values.add(value);
  if (values.size) filters.set(expression, values); else filters.delete(expression);
  change({ filters });
}

function choose(column, value) {
  const facet = settings.facets.find((one) => one.column === column);
  if (facet && !state.filters.get(facet.expression)?.has(value)) toggle(facet.expression, value);
}

function moreLike(id, title) {
  likeTitle = title;
  change({ like: id, query: "" });
  scrollTo({ top: 0 });
}

query.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const step = typing ? "replace" : "push";
    change({ query: query.value, like: "" }, step);
    typing = true;
  }, 200);
});
query.addEventListener("blur", () => { typing = false; });
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (query.value !== state.query) change({ query: query.value, like: "" });
  typing = false;
});
at("modes").addEventListener("change", (event) => change({ mode: event.target.value }));
at("sort")?.addEventListener("change", (event) => change({ sort: event.target.value }));
at("where").addEventListener("change", (event) => change({ where: event.target.value }));
at("more").addEventListener("click", () => change({ size: Math.min(200, state.size + 10) }));
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("command").textContent);
    at("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(at("command"));
  }
});
at("show-facets").addEventListener("click", () => {
  const open = at("facets").classList.toggle("open");
  at("show-facets").setAttribute("aria-expanded", String(open));
});
addEventListener("popstate", () => {
  clearTimeout(timer);
  typing = false;
  state = readState(settings);
  query.value = state.query;
  refresh();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const editing = event.target.matches("input[type=text], input[type=search], select, textarea");
  const cards = [...at("results").children];
  const place = cards.indexOf(event.target.closest?.("#results > li"));
  if (event.key === "/" && !editing) {
    event.preventDefault();
    query.focus();
    query.select();
  } else if (event.key === "Escape") {
    event.preventDefault();
    query.focus();
    query.value = "";
    if (state.query || state.like) change({ query: "", like: "" });
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && cards.length && (!editing || event.target === query)
    && !event.target.matches("input[type=radio]")) {
    event.preventDefault();
    const next = place + (event.key === "ArrowDown" ? 1 : -1);
    if (next < 0) query.focus(); else cards[Math.min(next, cards.length - 1)].focus();
  } else if (event.key === "Enter" && event.target.matches("#results > li")) {
    event.target.querySelector("h2 a").click();
  }
});

showControls();
refresh();
