// Questions to the server, with its error sentence where it has one.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function fetched(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Refused(answer?.error?.message ?? `The server answered ${response.status}.`, response.status);
}

const ask = (path, signal) => fetched(path, signal).then((response) => response.json());

const base = (name) => `/collections/${encodeURIComponent(name)}`;

export const search = (name, parameters, signal) => ask(`${base(name)}/search?${parameters}`, signal);

const given = (entries) => new URLSearchParams(Object.entries(entries).filter(([, value]) => value));

// `asked` has query and mode, or like, and where; what is empty is left out.
export function facets(name, columns, asked, signal) {
  const parameters = given(asked);
  for (const column of columns) parameters.append("columns", column);
  return ask(`${base(name)}/facets?${parameters}`, signal).then((answer) => answer.facets);
}

export function sentences(name, query, columns, ids, signal) {
  const parameters = given({ query });
  for (const column of columns) parameters.append("column", column);
  for (const id of ids) parameters.append("id", id);
  return ask(`${base(name)}/sentences?${parameters}`, signal).then((answer) => answer.texts);
}

export const map = (name, signal) => ask(`${base(name)}/map`, signal);

export const mapPoints = (name, key, signal) => fetched(`${base(name)}/map/points?${given({ key })}`, signal).then((response) => response.arrayBuffer());

export const mapColours = (name, key, by, signal) => ask(`${base(name)}/map/colours?${given({ key, by: by.expression, grouped: by.grouped ? "true" : "" })}`, signal);

export const mapFound = (name, key, { query, mode, like, where }, signal) =>
  ask(`${base(name)}/map/found?${given({ key, query, mode: query ? mode : "", like, where })}`, signal);

export function mapRecords(name, key, places, signal) {
  const parameters = given({ key });
  for (const place of places) parameters.append("place", place);
  return ask(`${base(name)}/map/records?${parameters}`, signal).then((answer) => answer.records);
}
