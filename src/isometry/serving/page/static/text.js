// Which sentences of a text share most words with the query.

const COMMON = new Set(("a an and are as at be by can do does for from has have how i in is it its me of on or our " +
  "show that the their these they this to using via was we were what when where which who why will with").split(" "));

const stem = (word) => word.replace(/(ing|ies|es|ed|s)$/u, "") || word;

export function wordsOf(text) {
  const found = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return new Set(found.filter((word) => word.length > 1 && !COMMON.has(word)).map((word) => (word.length > 4 ? stem(word) : word)));
}

const sentencesOf = (text) => text.match(/[^.!?]+(?:[.!?]+(?=\s|$)|[.!?]+\S[^.!?]*)*[.!?]*\s*/gu) ?? [text];

// [{text, marked}] for the whole text; at most two sentences are marked.
export function markSentences(text, words) {
  const parts = sentencesOf(text).map((sentence) => {
    const own = wordsOf(sentence);
    return { text: sentence, shared: [...words].filter((word) => own.has(word)).length, marked: false };
  });
  const best = Math.max(0, ...parts.map((part) => part.shared));
  if (best > 0) parts.filter((part) => part.shared === best).slice(0, 2).forEach((part) => { part.marked = true; });
  return parts;
}

// The part of a text to show first: around its first marked sentence, about `room` characters.
export function excerpt(parts, room = 420) {
  const first = parts.findIndex((part) => part.marked);
  let start = Math.max(0, first);
  if (parts.slice(0, start + 1).reduce((sum, part) => sum + part.text.length, 0) <= room) start = 0;
  const shown = [];
  let used = 0;
  for (const part of parts.slice(start)) {
    if (used && used + part.text.length > room) break;
    const cut = part.text.length > room + 200 ? { ...part, text: part.text.slice(0, room) } : part;
    shown.push(cut);
    used += part.text.length;
    if (cut !== part) break;
  }
  return { shown, before: start > 0, whole: start === 0 && shown.length === parts.length && shown.every((part, at) => part === parts[at]) };
}
