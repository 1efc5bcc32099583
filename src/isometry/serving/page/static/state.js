// The state of the page and its three forms: the address, the filter and the command.

export function readState(settings) {
  const given = new URLSearchParams(location.search);
  const filters = new Map();
  for (const facet of settings.facets) {
    const values = given.getAll("f." + facet.expression);
    if (values.length) filters.set(facet.expression, new Set(values));
  }
  const mode = given.get("mode");
  const size = Number.parseInt(given.get("n") ?? "", 10);
  return {
    query: given.get("q") ?? "",
    like: given.get("like") ?? "",
    mode: settings.modes.includes(mode) ? mode : settings.modes[0] ?? "vector",
    sort: settings.date && ["new", "old"].includes(given.get("sort")) ? given.get("sort") : "",
    where: given.get("where") ?? "",
    size: Number.isFinite(size) ? Math.min(200, Math.max(10, size)) : 10,
    view: given.get("view") === "map" ? "map" : "",
    colour: settings.colours.some((one) => one.key === given.get("colour")) || given.get("colour") === "none" ? given.get("colour") : settings.colours[0]?.key ?? "none",
    only: given.get("only") ?? "",
    at: given.get("at") ?? "",
    filters,
  };
}

export function address(state, settings) {
  const out = new URLSearchParams();
  if (state.query.trim()) out.set("q", state.query);
  if (state.like) out.set("like", state.like);
  if (state.mode !== settings.modes[0]) out.set("mode", state.mode);
  if (state.sort) out.set("sort", state.sort);
  if (state.where.trim()) out.set("where", state.where);
  if (state.size !== 10) out.set("n", state.size);
  for (const [name, values] of state.filters) for (const value of values) out.append("f." + name, value);
  if (state.view) {
    out.set("view", state.view);
    if (state.colour !== (settings.colours[0]?.key ?? "none")) out.set("colour", state.colour);
    if (state.only) out.set("only", state.only);
    if (state.at) out.set("at", state.at);
  }
  const text = out.toString();
  return location.pathname + (text ? "?" + text : "");
}

const text = (value) => "'" + value.replaceAll("'", "''") + "'";

function condition(facet, values) {
  const list = [...values];
  if (facet.kind === "list") {
    const parts = list.map((value) => `${text(value)} IN ${facet.expression}`);
    return parts.length > 1 ? `(${parts.join(" OR ")})` : parts[0];
  }
  const literals = list.map((value) =>
    facet.kind === "number" ? String(Number(value)) : facet.kind === "bool" ? (value === "true" ? "true" : "false") : text(value));
  return literals.length > 1 ? `${facet.expression} IN (${literals.join(", ")})` : `${facet.expression} = ${literals[0]}`;
}

// The filter of the state; a facet is counted without its own choice, so that its other values stay in reach.
export function filterOf(state, settings, without = null) {
  const parts = [];
  for (const facet of settings.facets) {
    const values = state.filters.get(facet.expression);
    if (values?.size && facet.expression !== without) parts.push(condition(facet, values));
  }
  const own = state.where.trim();
  if (own) parts.push(parts.length ? `(${own})` : own);
  return parts.join(" AND ");
}

export function searchParameters(state, settings) {
  const out = new URLSearchParams({ k: state.size, explain: "true" });
  const query = state.query.trim();
  if (query) { out.set("query", query); out.set("mode", state.mode); } else if (state.like) out.set("like", state.like);
  const where = filterOf(state, settings);
  if (where) out.set("where", where);
  const sort = sortOf(state, settings);
  if (sort) out.set("sort", sort);
  return out;
}

const sortOf = (state, settings) =>
  state.sort ? settings.date_expression + (state.sort === "new" ? " desc" : " asc") : "";

function shell(value) {
  if (/^[\w./:=@-]+$/.test(value)) return value;
  if (value.includes("'") && !/["$`\\!]/.test(value)) return `"${value}"`;
  return "'" + value.replaceAll("'", "'\\''") + "'";
}

export function command(state, settings) {
  const words = ["isometry", "search", shell(settings.name)];
  const query = state.query.trim();
  if (query && state.mode !== "vector") words.push("--mode", state.mode);
  if (!query && state.like) words.push("--like=" + shell(state.like));
  const where = filterOf(state, settings);
  if (where) words.push("--where", shell(where));
  if (state.sort) words.push("--sort", shell(sortOf(state, settings)));
  if (state.size !== 10) words.push("-k", String(state.size));
  if (query) words.push(...(query.startsWith("-") ? ["--"] : []), shell(query));
  return words.join(" ");
}
