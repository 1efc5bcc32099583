// The search page: state in, address and results out.

import * as api from "./api.js";
import { card, element } from "./cards.js";
import { drawActive, drawFacets, merged } from "./facets.js";
import { MapTab } from "./map.js";
import { drawPlan, duration, strategyOf } from "./plan.js";
import { address, command, filterOf, readState, searchParameters } from "./state.js";
import { wordsOf } from "./text.js";

const at = (id) => document.getElementById(id);
const main = at("main");
const settings = JSON.parse(main.dataset.settings);
const query = at("query");
let state = readState(settings);
let running = null;
let counting = null;
let plain = { where: null, counts: null }; // counts under a filter without a query, kept while the filter stays
let counts = null;
let total = 0;
let map = null;
let typing = false;
let timer = 0;
let likeTitle = "";

function showControls() {
  if (query.value !== state.query) query.value = state.query;
  for (const input of at("modes").querySelectorAll("input")) input.checked = input.value === state.mode;
  if (at("sort")) at("sort").value = state.sort;
  if (at("where").value !== state.where) at("where").value = state.where;
  if (state.where) at("expert").open = true;
  const onMap = state.view === "map";
  at("list-view").hidden = onMap;
  at("map-view").hidden = !onMap;
  if (at("order")) at("order").hidden = onMap;
  main.classList.toggle("wide", onMap);
  at("view-list").href = address({ ...state, view: "" }, settings);
  at("view-map").href = address({ ...state, view: "map" }, settings);
  at("view-list").toggleAttribute("aria-current", !onMap);
  at("view-map").toggleAttribute("aria-current", onMap);
  const like = at("like");
  like.hidden = !state.like || Boolean(state.query.trim());
  if (!like.hidden) {
    const stop = element("button", { className: "quiet small", type: "button", textContent: "Leave" });
    stop.addEventListener("click", () => change({ like: "" }));
    like.replaceChildren("Records like ", element("strong", { textContent: likeTitle || state.like }), " ", stop);
  }
}

// `step` is "push" for a new place in the history, "replace" while one is being typed, and "quiet" for what only the
// address has to follow.
function change(changes, step = "push") {
  const typed = timer && query.value !== state.query ? { query: query.value, like: "" } : {}; // not sent yet, not to be lost
  state = { ...state, ...(step === "quiet" || "size" in changes ? {} : { size: 10 }), ...(step === "quiet" ? {} : typed), ...changes };
  if (step !== "quiet") {
    clearTimeout(timer);
    timer = 0;
  }
  const next = address(state, settings);
  if (step !== "push") history.replaceState(null, "", next);
  else if (next !== location.pathname + location.search) history.pushState(null, "", next);
  sessionStorage.setItem("search:/c/" + encodeURIComponent(settings.name), location.pathname + location.search);
  if (step === "quiet") return;
  typing = step === "replace";
  refresh();
}

function refresh() {
  showControls();
  drawActive(at("active"), at("active-count"), state, settings, toggle, () => change({ filters: new Map(), where: "" }));
  answer();
  count();
  if (state.view === "map") (map ??= new MapTab(settings, change)).show(state);
  else map?.hide();
}

async function answer() {
  running?.abort();
  const own = (running = new AbortController());
  main.setAttribute("aria-busy", "true");
  const asked = state;
  try {
    const result = await api.search(settings.name, searchParameters(asked, settings), own.signal);
    if (own !== running) return;
    show(result, asked);
    mark(result.hits, asked, own.signal);
  } catch (error) {
    if (error.name !== "AbortError" && own === running) fail(error);
  } finally {
    if (own === running) main.removeAttribute("aria-busy");
  }
}

// Where meaning is compared, the encoder says which sentences are closest; until it has, shared words do.
async function mark(hits, asked, signal) {
  const query = asked.query.trim();
  if (!query || asked.mode === "text" || asked.view || !hits.length || !settings.body.length || !settings.modes.includes("vector")) return;
  try {
    for (let start = 0; start < hits.length; start += 10) {
      const part = hits.slice(start, start + 10);
      const texts = await api.sentences(settings.name, query, settings.body, part.map((hit) => hit.id), signal);
      part.forEach((hit, place) => {
        const own = texts.filter((one) => one.id === hit.id);
        const parts = own.flatMap(({ sentences }, at) => {
          const lines = sentences.map((one) => ({ text: one.text, marked: one.relevant }));
          return at ? [{ text: "\n", marked: false }, ...lines] : lines;
        });
        if (parts.length) at("results").children[start + place]?.mark(parts);
      });
    }
  } catch (error) {
    if (error.name !== "AbortError") return; // the marks by words stay
  }
}

// Counts of every facet; one with a choice is counted without it, so that its other values stay in reach.
async function facetCounts(asked, given, signal) {
  const chosen = settings.facets.filter((facet) => asked.filters.get(facet.expression)?.size);
  const others = settings.facets.filter((facet) => !chosen.includes(facet));
  const ask = (facets, without) => api.facets(settings.name, facets.map((facet) => facet.expression), { ...given, where: filterOf(asked, settings, without), limit: 40 }, signal);
  const answers = await Promise.all([
    others.length ? ask(others, null) : {},
    ...chosen.map((facet) => ask([facet], facet.expression)),
  ]);
  return Object.assign({}, ...answers);
}

async function count() {
  counting?.abort();
  if (!settings.facets.length) return;
  if (counts) drawFacets(at("facet-groups"), counts, state, settings, toggle);
  const own = (counting = new AbortController());
  const asked = state;
  const query = asked.query.trim();
  const where = filterOf(asked, settings);
  try {
    const given = query ? { query, mode: asked.mode } : asked.like ? { like: asked.like } : null;
    const [all, found] = await Promise.all([
      plain.where === where ? plain.counts : facetCounts(asked, {}, own.signal),
      given ? facetCounts(asked, given, own.signal) : null,
    ]);
    if (own !== counting) return;
    plain = { where, counts: all };
    counts = found ? merged(found, all) : all;
    drawFacets(at("facet-groups"), counts, state, settings, toggle);
    sayCounted();
  } catch (error) {
    if (error.name !== "AbortError" && own === counting) plain = { where: null, counts: null }; // the search says why
  }
}

function sayCounted() {
  const ranked = state.query.trim() ? state.mode !== "text" : Boolean(state.like);
  const most = Math.min(200, total);
  at("counted").textContent = ranked && total > most ? `Counts are among the ${number(most)} most relevant.` : state.query.trim() && !ranked ? "Counts are of records with these words." : "";
}

function show(result, asked) {
  total = result.total;
  sayCounted();
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
  drawPlan(at("plan"), result);
  at("how").hidden = false;
  at("command").textContent = command(asked, settings);
}

function fail(error) {
  const retry = element("button", { className: "quiet small", type: "button", textContent: "Try again" });
  retry.addEventListener("click", refresh);
  const enter = element("a", { href: `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`, textContent: "Sign in" });
  at("status").className = "status error";
  at("status").replaceChildren(error.status === 401 ? "The server asks for its token. " : `${error.message} `, error.status === 401 ? enter : error.status === 422 ? "" : retry);
  at("results").replaceChildren();
  at("empty").hidden = true;
  at("more").hidden = true;
  at("how").hidden = true;
}

const number = (value) => Number(value).toLocaleString("en");

function statusOf(result, asked) {
  const words = asked.query.trim() && asked.mode === "text";
  const what = words ? " with these words" : asked.query.trim() || asked.like ? " ranked" : "";
  const under = filterOf(asked, settings) ? " under the filters" : "";
  const sorted = result.plan.sorted && result.plan.sorted.of < result.total ? ` · the ${number(result.plan.sorted.of)} most relevant in order of date` : "";
  const strategy = strategyOf(result.plan);
  return `${number(result.total)} ${result.total === 1 ? "record" : "records"}${what}${under}${sorted} · ${strategy ? strategy + " in " : ""}${duration(result.milliseconds)}`;
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
at("more").addEventListener("click", () => change({ size: Math.min(200, state.size + 10) }, "replace"));
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("command").textContent);
    at("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(at("command"));
  }
});
function closeFacets() {
  at("facets").classList.remove("open");
  at("show-facets").setAttribute("aria-expanded", "false");
}
at("show-facets").addEventListener("click", () => {
  const open = at("facets").classList.toggle("open");
  at("show-facets").setAttribute("aria-expanded", String(open));
});
for (const [id, view] of [["view-list", ""], ["view-map", "map"]]) {
  at(id).addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (state.view !== view) change({ view, size: state.size });
  });
}
addEventListener("popstate", () => {
  clearTimeout(timer);
  timer = 0;
  typing = false;
  state = readState(settings);
  query.value = state.query;
  refresh();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const editing = event.target.matches("input[type=text], input[type=search], select, textarea");
  const cards = state.view === "map" ? [] : [...at("results").children];
  const place = cards.indexOf(event.target.closest?.("#results > li"));
  if (event.key === "/" && !editing) {
    event.preventDefault();
    query.focus();
    query.select();
  } else if (event.key === "Escape") {
    if (at("facets").classList.contains("open")) closeFacets();
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
