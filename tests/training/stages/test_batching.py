from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.training.stages import MixedBatchSampler, class_triplets, graded_pairs, mixed_batches


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
