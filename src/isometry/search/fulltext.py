"""A person's words to a full-text query: any word may match, "quoted phrases" must stand together, -word leaves out."""

from __future__ import annotations

import re

from isometry.errors import InputError

MAX_TERMS = 64
_PART = re.compile(r'(?P<minus>-)?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))')
_WORDS = re.compile(r"\w+")
# Words that say nothing about a topic; they are dropped while other words remain.
_COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "may",
        "more",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "s",
        "so",
        "such",
        "t",
        "than",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "up",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "you",
        "your",
    ]
)


def match_expression(query: str) -> str | None:
    """An FTS5 expression for a query, or None when it holds no word. Raises `InputError` when every word is left out."""
    wanted: list[str] = []
    common: list[str] = []
    unwanted: list[str] = []
    for part in _PART.finditer(query):
        text = part["phrase"] if part["phrase"] is not None else part["word"]
        words = _WORDS.findall(text)
        if not words:
            continue
        term = '"' + " ".join(words) + '"'
        if part["minus"]:
            unwanted.append(term)
        elif part["phrase"] is not None:
            wanted.append(term)
        else:
            for word in words:
                (common if word.lower() in _COMMON else wanted).append(f'"{word}"')
    chosen = list(dict.fromkeys(wanted or common))[:MAX_TERMS]
    if not chosen:
        if unwanted:
            raise InputError("the query only leaves words out; add a word to look for")
        return None
    expression = " OR ".join(chosen)
    if unwanted:
        expression = f"({expression}) NOT ({' OR '.join(dict.fromkeys(unwanted[:MAX_TERMS]))})"
    return expression
