// Results as cards. Everything that comes from a record goes in as text.

import { excerpt, markSentences } from "./text.js";

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// The ids "." and ".." are no parts of a path, which browsers would resolve.
export const recordAddress = (name, id) =>
  `/c/${encodeURIComponent(name)}/record${id === "." || id === ".." ? `?id=${id}` : `/${encodeURIComponent(id)}`}`;

// The title of {id, record}, or its id where it has none.
export const titleOf = (settings, one) => String((settings.title && one.record[settings.title]) || one.id);

const items = (value) => (value === null || value === undefined || value === "" ? [] : Array.isArray(value) ? value.map(String) : [String(value)]);

function fill(paragraph, parts, before, after) {
  const nodes = parts.flatMap((part) => {
    if (!part.marked) return [part.text];
    const end = part.text.trimEnd();
    return [element("mark", { textContent: end }), part.text.slice(end.length)];
  });
  paragraph.replaceChildren(...(before ? ["… "] : []), ...nodes, ...(after ? ["…"] : []));
}

// A text with its marked sentences, short at first. `mark(parts)` shows other marks.
function bodyOf(parts) {
  const paragraph = element("p", { className: "body" });
  const toggle = element("button", { className: "quiet small", type: "button" });
  let open = false;
  const draw = () => {
    const part = excerpt(parts);
    toggle.hidden = part.whole;
    toggle.textContent = open ? "Less" : "Whole text";
    toggle.setAttribute("aria-expanded", String(open));
    if (open) fill(paragraph, parts, false, false); else fill(paragraph, part.shown, part.before, !part.whole);
  };
  toggle.addEventListener("click", () => { open = !open; draw(); });
  draw();
  return { paragraph, toggle, mark(marked) { parts = marked; draw(); } };
}

export function card(hit, settings, words, actions) {
  const record = hit.record;
  const title = titleOf(settings, hit);
  const link = element("a", { href: recordAddress(settings.name, hit.id), textContent: title });
  const meta = element("p", { className: "meta" });
  if (settings.date && record[settings.date]) meta.append(element("time", { textContent: String(record[settings.date]).slice(0, 10) }));
  for (const column of settings.chips) {
    for (const value of items(record[column])) {
      const chip = element("button", { className: "chip", type: "button", textContent: value, title: `Only ${value}` });
      chip.addEventListener("click", () => actions.choose(column, value));
      meta.append(chip);
    }
  }
  meta.append(element("span", { className: "id", textContent: hit.id }));
  if (hit.score) meta.append(element("span", { className: "score", textContent: hit.score.toFixed(3), title: hit.explanation?.formula ?? "score" }));
  const text = settings.body.map((column) => record[column]).filter(Boolean).join("\n");
  const body = text ? bodyOf(markSentences(text, words)) : null;
  const like = element("button", { className: "quiet small", type: "button", textContent: "More like this" });
  like.addEventListener("click", () => actions.like(hit.id, title));
  const byline = settings.byline && record[settings.byline]
    ? element("p", { className: "byline", textContent: items(record[settings.byline]).join(", ") }) : null;
  const picture = settings.image ? element("img", { className: "thumb", loading: "lazy", alt: "", src: `/c/${encodeURIComponent(settings.name)}/picture/${encodeURIComponent(hit.id)}` }) : null;
  picture?.addEventListener("error", () => picture.remove());
  const made = element("li", { className: "card", tabIndex: -1 }, picture, element("h2", {}, link), byline, meta, body?.paragraph, element("p", { className: "actions" }, body?.toggle, like));
  made.mark = body ? body.mark : () => {};
  return made;
}
