// Filters with counts, and the ones that are on.

import { element } from "./cards.js";

const FIRST = 8;
const unfolded = new Set();

export function drawFacets(place, counts, state, settings, toggle) {
  const focused = document.activeElement?.dataset?.facet;
  place.replaceChildren(...settings.facets.map((facet) => group(facet, counts[facet.expression] ?? [], state, toggle)));
  if (focused) [...place.querySelectorAll("input")].find((input) => input.dataset.facet === focused)?.focus();
}

// Counts under a query, then the values that only occur outside it, with none.
export function merged(found, all) {
  return Object.fromEntries(Object.entries(all ?? {}).map(([expression, values]) => {
    const held = found[expression] ?? [];
    const known = new Set(held.map((one) => String(one.value)));
    return [expression, [...held, ...values.filter((one) => !known.has(String(one.value))).map((one) => ({ ...one, count: 0 }))]];
  }));
}

function group(facet, values, state, toggle) {
  const chosen = state.filters.get(facet.expression) ?? new Set();
  const known = new Set(values.map((one) => String(one.value)));
  if (facet.kind === "number") values = [...values].sort((one, other) => other.value - one.value);
  const all = [...[...chosen].filter((value) => !known.has(value)).map((value) => ({ value, count: 0 })), ...values];
  const open = unfolded.has(facet.expression);
  const rows = all.map((one, place) => {
    const value = String(one.value);
    const input = element("input", { type: "checkbox", checked: chosen.has(value) });
    input.dataset.facet = facet.expression + "=" + value;
    input.addEventListener("change", () => toggle(facet.expression, value));
    const row = element("label", { className: one.count || chosen.has(value) ? "value" : "value none" }, input, element("span", { textContent: value }),
      element("span", { className: "count", textContent: one.count.toLocaleString("en") }));
    row.hidden = place >= FIRST && !open && !chosen.has(value);
    return row;
  });
  const box = element("fieldset", {}, element("legend", { textContent: facet.label }), ...rows);
  if (all.length > FIRST) {
    const more = element("button", { className: "quiet small", type: "button", textContent: open ? "Fewer" : `${all.length - FIRST} more` });
    more.addEventListener("click", () => {
      const unfold = !unfolded.delete(facet.expression);
      if (unfold) unfolded.add(facet.expression);
      rows.forEach((row, place) => { row.hidden = place >= FIRST && !unfold && !row.firstChild.checked; });
      more.textContent = unfold ? "Fewer" : `${all.length - FIRST} more`;
    });
    box.append(more);
  }
  return box;
}

export function drawActive(place, counter, state, settings, toggle, clear) {
  const chips = [];
  for (const facet of settings.facets) {
    for (const value of state.filters.get(facet.expression) ?? []) {
      const chip = element("button", { className: "chip on", type: "button", textContent: `${facet.label}: ${value} ×` });
      chip.setAttribute("aria-label", `Take away the filter ${facet.label} ${value}`);
      chip.addEventListener("click", () => toggle(facet.expression, value));
      chips.push(chip);
    }
  }
  const on = chips.length + (state.where.trim() ? 1 : 0);
  counter.textContent = on ? ` (${on})` : "";
  if (on) {
    const all = element("button", { className: "quiet small", type: "button", textContent: "Clear filters" });
    all.addEventListener("click", clear);
    chips.push(all);
  }
  place.replaceChildren(...chips);
}
