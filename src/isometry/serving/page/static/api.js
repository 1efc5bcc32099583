// Questions to the server, with its error sentence where it has one.

async function ask(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok || answer === null) throw new Error(answer?.error?.message ?? `The server answered ${response.status}.`);
  return answer;
}

const base = (name) => `/collections/${encodeURIComponent(name)}`;

export const search = (name, parameters, signal) => ask(`${base(name)}/search?${parameters}`, signal);

export function facets(name, columns, where, signal) {
  const parameters = new URLSearchParams(columns.map((column) => ["columns", column]));
  if (where) parameters.set("where", where);
  return ask(`${base(name)}/facets?${parameters}`, signal).then((answer) => answer.facets);
}
