"""How rows come together in batches: by data set (homogeneous, semi-homogeneous, blended) and by length.

Papers 05 (blended), 06 (semi-homogeneous), 55 (homogeneous). sentence-transformers only makes homogeneous batches, of
rows of any length; `MixedBatchSampler` is its sampler class, to be given as `multi_dataset_batch_sampler` of the
training arguments, `LikeLengthSampler` another, to be given as `batch_sampler`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler, MultiDatasetDefaultBatchSampler

from isometry.errors import InputError


def mixed_batches(
    sizes: Sequence[int], batch_size: int, ratio: float, generator: torch.Generator, drop_last: bool = False
) -> list[list[int]]:
    """Rows 0..sum(sizes) - 1 of concatenated data sets, in batches; every row exactly once per epoch.

    Args:
        sizes: rows of each data set.
        ratio: 1 = every batch from one data set (tails of different sets share the last batches), 0 = rows drawn from
            all alike, between = that share of each batch stays with its data set and the rest is shuffled among all
            batches (paper 06).
        drop_last: leave out a last batch that is not full.
    """
    if not 0.0 <= ratio <= 1.0:
        raise InputError(f"the share of rows that stay with their data set is between 0 and 1, not {ratio}")
    if batch_size < 1:
        raise InputError(f"a batch has at least one row, not {batch_size}")
    batches, tail, start = [], [], 0
    for size in sizes:
        rows = (start + torch.randperm(size, generator=generator)).tolist()
        whole = size - size % batch_size
        batches += [rows[i : i + batch_size] for i in range(0, whole, batch_size)]
        tail += rows[whole:]
        start += size
    order = torch.randperm(len(tail), generator=generator).tolist()
    tail = [tail[i] for i in order]
    batches += [tail[i : i + batch_size] for i in range(0, len(tail), batch_size)]
    _swap(batches, ratio, generator)
    order = torch.randperm(len(batches), generator=generator).tolist()
    batches = [batches[i] for i in order]
    if drop_last:
        batches = [batch for batch in batches if len(batch) == batch_size]
    return batches


def like_length_batches(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, window: int = 16, drop_last: bool = False
) -> list[list[int]]:
    """Rows in batches of like length, every row exactly once per epoch: a batch is padded to its longest row.

    The rows are shuffled, taken `window` batches at a time, sorted by length there and cut into batches, which are
    shuffled. Who meets whom changes every epoch, as far as lengths allow.

    Args:
        lengths: of the rows, in any unit.
        window: batches that are sorted together; 1 leaves the rows as shuffled.
        drop_last: leave out a last batch that is not full.
    """
    if batch_size < 1 or window < 1:
        raise InputError(f"a batch has at least one row and a window one batch, not {batch_size} and {window}")
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), window * batch_size):
        near = order[start : start + window * batch_size]
        if window > 1:
            # Sorting is stable, so rows of one length stay shuffled.
            near.sort(key=lengths.__getitem__)
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    if drop_last:
        batches = [batch for batch in batches if len(batch) == batch_size]
    if window == 1:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class LikeLengthSampler(DefaultBatchSampler):
    """Batches of rows of like length over one data set; see `like_length_batches`.

    A row's length is the number of characters of its text columns. `functools.partial(LikeLengthSampler, window=4)`
    sets the window. With `shares` = n, each n batches that follow one another are one batch of n times the size, cut for
    n processes, and what does not fill all n is left out. With `sources`, the number of each row's data set, batches are
    those of `mixed_batches` with the ratio `mixing`, of any lengths.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: Any = None,
        seed: int = 0,
        window: int = 16,
        shares: int = 1,
        sources: Sequence[int] = (),
        mixing: float = 0.0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last or shares > 1, valid_label_columns, generator, seed)
        self.window, self.shares, self.mixing = window, shares, mixing
        # The evaluation rows go through a sampler too, and have no sources.
        self.sources = list(sources) if len(sources) == len(dataset) else []
        self.lengths = [0] * len(dataset)
        for name in dataset.column_names:
            column = dataset[name]
            if len(column) and isinstance(column[0], str):
                self.lengths = [known + len(text) for known, text in zip(self.lengths, column, strict=True)]

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        size = self.batch_size * self.shares
        if self.sources:
            order = sorted(range(len(self.sources)), key=self.sources.__getitem__)
            sizes = list(Counter(sorted(self.sources)).values())
            mixed = mixed_batches(sizes, size, self.mixing, generator, self.drop_last)
            batches = [[order[row] for row in batch] for batch in mixed]
        else:
            batches = like_length_batches(self.lengths, size, generator, self.window, self.drop_last)
        for batch in batches:
            for start in range(0, len(batch), self.batch_size):
                yield batch[start : start + self.batch_size]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size * self.shares)
        return whole * self.shares + bool(rest and not self.drop_last)


class MixedBatchSampler(MultiDatasetDefaultBatchSampler):
    """Batches over several data sets with a share `ratio` of homogeneous rows; see `mixed_batches`.

    Blended batches reach one loss, so give the trainer one loss, and data sets with the same columns.
    `functools.partial(MixedBatchSampler, ratio=.5)` sets the share.
    """

    def __init__(
        self, dataset: Any, batch_samplers: Any, generator: Any = None, seed: int = 0, ratio: float = 1.0
    ) -> None:
        super().__init__(dataset, batch_samplers, generator, seed)
        self.ratio = ratio

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        sizes = [len(one) for one in self.dataset.datasets]
        yield from mixed_batches(sizes, self.batch_size, self.ratio, generator, self.drop_last)

    def __len__(self) -> int:
        total = sum(len(one) for one in self.dataset.datasets)
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)


def _swap(batches: list[list[int]], ratio: float, generator: torch.Generator) -> None:
    """Shuffle a share 1 - ratio of each batch's rows among all batches, in place."""
    places = []
    for b, batch in enumerate(batches):
        given = round(len(batch) * (1 - ratio))
        chosen = torch.randperm(len(batch), generator=generator)[:given].tolist()
        places += [(b, i) for i in chosen]
    rows = [batches[b][i] for b, i in places]
    order = torch.randperm(len(rows), generator=generator).tolist()
    for (b, i), source in zip(places, order, strict=True):
        batches[b][i] = rows[source]
