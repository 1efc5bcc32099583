from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.training.stages import (
    LikeLengthSampler,
    MixedBatchSampler,
    class_triplets,
    graded_pairs,
    like_length_batches,
    mixed_batches,
)


def draw(sizes, batch_size, ratio, seed=0, drop_last=False):
    return mixed_batches(sizes, batch_size, ratio, torch.Generator().manual_seed(seed), drop_last)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(1, 7), st.floats(0, 1), st.integers(0, 99))
def test_every_row_exactly_once(sizes, batch_size, ratio, seed):
    batches = draw(sizes, batch_size, ratio, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(sum(sizes)))
    assert max(map(len, batches), default=0) <= batch_size
    assert sum(len(batch) < batch_size for batch in batches) <= 1


def of_first(batch, size):
    return sum(row < size for row in batch)


def test_ratio_one_is_pure_and_zero_is_blended():
    pure = draw([64, 64], 8, 1.0)
    assert {of_first(batch, 64) for batch in pure} == {0, 8}
    half = draw([640, 640], 16, 0.5)
    staying = [max(of_first(batch, 640), 16 - of_first(batch, 640)) for batch in half]
    assert min(staying) >= 8 and 11 < sum(staying) / len(staying) < 13.5
    blended = draw([640, 640], 16, 0.0)
    assert {of_first(batch, 640) for batch in blended} > {5, 6, 7, 8, 9, 10}


def test_only_tails_mix_when_homogeneous():
    batches = draw([10, 10], 4, 1.0)
    mixed = [batch for batch in batches if 0 < of_first(batch, 10) < len(batch)]
    assert len(mixed) <= 1
    assert all(len(batch) == 4 for batch in draw([10, 11], 4, 1.0, drop_last=True))


def test_bad_settings():
    with pytest.raises(InputError, match="between 0 and 1"):
        draw([3], 2, 1.5)
    with pytest.raises(InputError, match="at least one row"):
        draw([3], 0, 1.0)


def test_sampler_is_taken_by_the_trainer(bert, tmp_path):
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    from isometry.training.losses import InfoNCE
    from tests.tiny_text import sentences

    def data(seed):
        return Dataset.from_dict({"anchor": sentences(10, seed), "positive": sentences(10, seed + 1)})

    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        report_to=[],
        multi_dataset_batch_sampler=functools.partial(MixedBatchSampler, ratio=0.5),
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SentenceTransformerTrainer(
        bert, arguments, train_dataset=DatasetDict(a=data(0), b=data(5)), loss=InfoNCE(bert)
    )
    loader = trainer.get_train_dataloader()
    assert len(loader) == 5
    assert sum(len(batch["anchor_input_ids"]) for batch in loader) == 20
    assert trainer.train().global_step == 5


def test_class_rows_by_example():
    texts, labels = ["a1", "a2", "b1", "b2", "c1"], list("aabbc")
    rows = class_triplets(texts, labels, negatives=2)
    assert rows["anchor"] == ["a1", "a2", "b1", "b2"]
    for anchor, positive, *negatives in zip(*rows.values(), strict=True):
        assert positive[0] == anchor[0] and positive != anchor
        assert all(negative[0] != anchor[0] for negative in negatives)
    assert class_triplets(texts, labels, negatives=2) == rows


def test_class_rows_by_label_text():
    rows = class_triplets(["x", "y"], ["sports", "news"], positives="label")
    assert rows == {"anchor": ["x", "y"], "positive": ["sports", "news"], "negative_1": ["news", "sports"]}


def test_class_rows_need_two_classes_and_two_texts():
    with pytest.raises(InputError, match="two of them"):
        class_triplets(["x", "y"], ["a", "a"])
    with pytest.raises(InputError, match="no class has two"):
        class_triplets(["x", "y"], ["a", "b"])


def test_graded_pairs_go_both_ways():
    rows = graded_pairs(["a", "b"], ["c", "d"], [4.5, 1.0], 4.0)
    assert rows == {"anchor": ["a", "c"], "positive": ["c", "a"]}
    with pytest.raises(InputError, match=r"4\.0 or more"):
        graded_pairs(["a"], ["c"], [1.0], 4.0)


def by_length(lengths, batch_size, window=16, seed=0, drop_last=False):
    return like_length_batches(lengths, batch_size, torch.Generator().manual_seed(seed), window, drop_last)


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(1, 7), st.integers(1, 5), st.integers(0, 9))
def test_rows_of_like_length_come_exactly_once(lengths, batch_size, window, seed):
    batches = by_length(lengths, batch_size, window, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert sum(len(batch) < batch_size for batch in batches) <= 1
    full = by_length(lengths, batch_size, window, seed, drop_last=True)
    assert all(len(batch) == batch_size for batch in full) and len(full) == len(lengths) // batch_size


def test_batches_of_like_length_pad_less_and_still_shuffle():
    lengths = torch.randint(5, 200, (1024,), generator=torch.Generator().manual_seed(1)).tolist()

    def padded(batches):
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) / sum(lengths)

    plain, near = by_length(lengths, 16, window=1), by_length(lengths, 16)
    assert padded(plain) > 1.7 and padded(near) < 1.1
    again, later = by_length(lengths, 16), by_length(lengths, 16, seed=1)
    assert near == again and near != later
    mates = {frozenset(batch) for batch in near} & {frozenset(batch) for batch in later}
    assert not mates
    longest = [max(lengths[row] for row in batch) for batch in near]
    assert longest != sorted(longest)
    same = by_length([7] * 64, 8)
    assert same != by_length([7] * 64, 8, seed=1)
    with pytest.raises(InputError, match="a window one batch"):
        by_length([1], 1, window=0)


def test_processes_share_the_batches_of_one():
    from datasets import Dataset

    rows = Dataset.from_dict({"anchor": ["w " * (1 + i % 7) for i in range(27)], "label": [0] * 27})
    alone = LikeLengthSampler(rows, 6, True, seed=3, window=2)
    shared = LikeLengthSampler(rows, 3, False, seed=3, window=2, shares=2)
    parts = list(shared)
    assert [one + two for one, two in zip(parts[::2], parts[1::2], strict=True)] == list(alone)
    assert len(parts) == len(shared) == 8 and len(alone) == 4
    assert len(LikeLengthSampler(rows, 6, False)) == 5 == len(list(LikeLengthSampler(rows, 6, False)))


def test_a_share_of_each_batch_stays_with_its_data_set():
    from datasets import Dataset

    rows = Dataset.from_dict({"anchor": ["w"] * 24})
    sources = [0, 1] * 12
    pure = list(LikeLengthSampler(rows, 4, False, sources=sources, mixing=1.0))
    assert all(len({sources[row] for row in batch}) == 1 for batch in pure)
    assert sorted(row for batch in pure for row in batch) == list(range(24))
    semi = list(LikeLengthSampler(rows, 4, False, sources=sources, mixing=0.5))
    assert sorted(row for batch in semi for row in batch) == list(range(24))
    assert any(len({sources[row] for row in batch}) == 2 for batch in semi)
    parts = list(LikeLengthSampler(rows, 2, False, sources=sources, mixing=1.0, shares=2))
    assert [one + two for one, two in zip(parts[::2], parts[1::2], strict=True)] == pure
