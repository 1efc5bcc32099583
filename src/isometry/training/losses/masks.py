"""What a batch knows about its own false negatives: identical texts, and what a guide model thinks.

Paper 55. Two traps of the published loss are avoided by construction in `InfoNCE`: a row never meets itself, and
identical texts are recognised by their tokens instead of by a guide similarity that happens to exceed a threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def duplicate_keys(features: Sequence[dict[str, Tensor]]) -> list[Tensor] | None:
    """Per column one number per text `(b,)`; equal numbers are identical token sequences, in whatever column.

    The numbers are digests of the tokens, so processes that share a batch agree on them.
    None where the inputs are not padded token rows (flattened batches, static embeddings): then nothing is masked.
    """
    if any("input_ids" not in column or column["input_ids"].ndim != 2 for column in features):
        return None
    keys = []
    for column in features:
        ids = column["input_ids"].cpu().numpy()
        mask = column["attention_mask"].cpu().numpy().astype(bool)
        texts = (row[real].astype(np.int32).tobytes() for row, real in zip(ids, mask, strict=True))
        numbers = [
            int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True) for text in texts
        ]
        keys.append(torch.tensor(numbers, device=column["input_ids"].device))
    return keys


def guide_vectors(guide: Any, model: Any, features: Sequence[dict[str, Tensor]], batch_size: int) -> list[Tensor]:
    """A guide's vectors `(b, g)` for every column, from the student's tokens: decoded where tokenizers differ."""
    core = model
    for wrapper in ("module", "_orig_mod"):
        core = getattr(core, wrapper, core)
    student, teacher = core.tokenizer, guide.tokenizer
    same = type(student) is type(teacher) and student.get_vocab() == teacher.get_vocab()
    vectors = []
    with torch.no_grad():
        for column in features:
            ids, mask = column["input_ids"], column["attention_mask"]
            parts = []
            for start in range(0, len(ids), batch_size):
                rows = slice(start, start + batch_size)
                if same and guide.max_seq_length >= ids.shape[1]:
                    inputs = {"input_ids": ids[rows], "attention_mask": mask[rows]}
                    inputs = {name: value.to(guide.device) for name, value in inputs.items()}
                else:
                    texts = student.batch_decode(ids[rows], skip_special_tokens=True)
                    inputs = guide.preprocess(texts)
                    inputs = {k: v.to(guide.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
                parts.append(guide(inputs)["sentence_embedding"])
            vectors.append(torch.cat(parts).to(ids.device))
    return vectors


def add_guide_vectors(dataset: Any, guide: Any, batch_size: int = 64) -> Any:
    """A `datasets.Dataset` with a `label` column of guide vectors `(columns, g)` per row, each text encoded once.

    Epochs repeat the data, so a guide that is asked beforehand costs one pass instead of one per epoch. Use with
    `InfoNCE(labels="guide")`.
    """
    columns = list(dataset.column_names)
    texts = list(dict.fromkeys(text for column in columns for text in dataset[column]))
    vectors = guide.encode(texts, batch_size=batch_size, show_progress_bar=False)
    row_of = {text: row for row, text in enumerate(texts)}
    labels = [[vectors[row_of[row[column]]].tolist() for column in columns] for row in dataset]
    return dataset.add_column("label", labels)
