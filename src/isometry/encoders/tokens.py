"""Texts to token ids, cut at the model's limit, without reading more of a long text than the limit needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding, Tokenizer

# English has 4 to 5 characters per token; a text whose first 16 per token do not fill the limit is read further.
_CHARACTERS_PER_TOKEN = 16
# The tokenizer's own records are some 100 bytes per token, so they are turned into arrays block by block.
_BLOCK = 256


class Tokens:
    """Tokenizes in Rust, without padding.

    A long text is cut at a white space before it is tokenized. The kept tokens are those of the whole text for every
    tokenizer that works word by word: the cut is taken only where the part alone overfills the limit, so all kept
    tokens belong to words that stand whole in it; otherwise four times as much is read.

    Args:
        tokenizer: copied, so that settings of the caller's stay as they are.
        limit: tokens kept, special tokens included; None keeps all.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int | None) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if limit is not None:
            self._tokenizer.enable_truncation(limit)
        self.limit = limit

    def __call__(self, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
        """Ids of each text, int32; the tokens that each lost, int64 `(n,)`; the part of each text that was read.

        Where the end of a text was never tokenized, its share of the loss is estimated from the part that was.
        """
        ids: list[np.ndarray] = []
        lost: list[int] = []
        read: list[str] = []
        for start in range(0, len(texts), _BLOCK):
            block = [clean(text) for text in texts[start : start + _BLOCK]]
            size = len(max(block, key=len)) if self.limit is None else self.limit * _CHARACTERS_PER_TOKEN
            heads = [_head(text, size) for text in block]
            for text, head, encoding in zip(block, heads, self._tokenizer.encode_batch_fast(heads), strict=True):
                kept, cut, part = self._finish(text, head, encoding, size)
                ids.append(kept)
                lost.append(cut)
                read.append(part)
        return ids, np.array(lost, np.int64), read

    def _finish(self, text: str, head: str, encoding: Encoding, size: int) -> tuple[np.ndarray, int, str]:
        cut = sum(len(rest.ids) - sum(rest.special_tokens_mask) for rest in encoding.overflowing)
        while len(head) < len(text) and not cut:
            size *= 4
            head = _head(text, size)
            encoding = self._tokenizer.encode(head)
            cut = sum(len(rest.ids) - sum(rest.special_tokens_mask) for rest in encoding.overflowing)
        if len(head) < len(text):
            cut += round((len(encoding.ids) + cut) * (len(text) - len(head)) / len(head))
        return np.array(encoding.ids, np.int32), cut, head


def clean(text: str) -> str:
    """The text with lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _head(text: str, size: int) -> str:
    """The text's first characters, at most `size`, up to a white space; the whole text where it has none there."""
    if len(text) <= size:
        return text
    words = text[:size].rsplit(None, 1)
    return words[0] if len(words) == 2 else text
