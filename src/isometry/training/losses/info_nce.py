"""One InfoNCE family: every contrastive loss of the text papers is a setting of this class.

Papers 02, 05, 06, 10, 42, 48, 55. With its defaults it equals sentence-transformers' MultipleNegativesRankingLoss;
what that class does not have is here: in-batch negatives off, hard negatives for their own query only, masks for
duplicates, known positives and false negatives, focal weights, mixed negatives, soft labels, a learned temperature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.errors import InputError
from isometry.training.losses.functional import cosine_matrix, focal_weights, kl_between_scores, standardise
from isometry.training.losses.masks import duplicate_keys, guide_vectors
from isometry.training.margins import MarginRule
from isometry.training.negatives.mixing import draw_pairs, mix_list, mix_pairs
from isometry.training.processes import gather_rows

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


class InfoNCE(CachedLossMixin, nn.Module):
    """Contrastive cross-entropy over cosines, with columns (query, positive, negative 1, …, negative m).

    Args:
        model: a SentenceTransformer (None for `compute_loss_from_embeddings` alone).
        temperature: tau; cosines are divided by it.
        directions: which similarities stand in the denominator, of `DIRECTIONS`; "query_to_doc" is always there.
            "doc_to_doc" compares positives with positives (papers 06 and 55). In a joint softmax the positive pair
            counts once, where sentence-transformers counts it again in "doc_to_query".
        partition: "joint" = one softmax over all directions; "per_direction" = one each, averaged.
        in_batch: the positives of other rows are negatives. Off for class data, where they are often positives (05).
        hard: the hard negatives serve "shared" all rows of the batch (05 stage 1, 06) or "own" row only (05 stage 2).
        mask_duplicates: rows that share a text, and negatives equal to the row's own query or positive, leave the
            denominator. A row never meets itself, whatever the masks say.
        labels: what the label column holds: None = nothing this loss reads; "groups" = a whole number per row, rows of
            one group are never negatives of each other; "scores" = teacher scores `(b, 1 + m)` of the row's own
            candidates (soft labels); "guide" = vectors `(b, columns, g)` of a guide made beforehand.
        guide: a frozen SentenceTransformer that decides on the fly what may be a negative (paper 55).
        guide_margin: an item leaves the denominator where the guide finds it closer than this rule's threshold below
            the guide's score of the row's own pair. The default is paper 55's strict comparison without margin.
        focal / focal_gradient / focal_normalise: see `focal_weights`; 0 is plain InfoNCE.
        mixed_pairs / mixed_list: how many synthetic negatives per row are made of two negatives, and whether one is
            made of all of them (paper 06); they serve their own row only.
        hard_weight / soft_weight: weights of the cross-entropy and of KL(teacher || student) over the row's own
            candidates; soft labels need labels="scores". How the labels enter the loss is our choice: paper 42 is
            silent.
        teacher_temperature: of the soft labels, on scores standardised per row if `standardise_teacher`.
        learn_temperature: tau becomes a parameter (as log(1/tau), 1/tau at most 100).
        gather: where several processes train together, each row meets the rows of all of them. Off, each process has
            a batch of its own.
        mini_batch_size: turns gradient caching on: the encoder only ever holds the activations of so many texts, at
            the price of a second forward pass. None embeds the whole batch at once.

    After a call, `masked` holds the fraction of possible negatives that the masks took away, per direction.
    """

    def __init__(
        self,
        model: Any = None,
        temperature: float = 0.05,
        *,
        directions: tuple[str, ...] = ("query_to_doc",),
        partition: Literal["joint", "per_direction"] = "joint",
        in_batch: bool = True,
        hard: Literal["shared", "own"] = "shared",
        mask_duplicates: bool = True,
        labels: Literal["groups", "scores", "guide"] | None = None,
        guide: Any = None,
        guide_margin: MarginRule | None = None,
        focal: float = 0.0,
        focal_gradient: bool = False,
        focal_normalise: bool = False,
        mixed_pairs: int = 0,
        mixed_list: bool = False,
        hard_weight: float = 1.0,
        soft_weight: float = 0.0,
        teacher_temperature: float = 1.0,
        standardise_teacher: bool = False,
        learn_temperature: bool = False,
        gather: bool = True,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0 or teacher_temperature <= 0:
            raise InputError("a temperature is greater than zero")
        if "query_to_doc" not in directions or not set(directions) <= set(DIRECTIONS):
            raise InputError(f"directions are of {', '.join(DIRECTIONS)} and hold query_to_doc; got {directions}")
        if partition == "per_direction" and set(directions) & {"query_to_query", "doc_to_doc"}:
            raise InputError("only query_to_doc and doc_to_query hold the positive pair, so only they can stand alone")
        if not in_batch and len(directions) > 1:
            raise InputError("without in-batch negatives there is only the direction query_to_doc")
        if guide is not None and labels == "guide":
            raise InputError("give a guide model or a label column of guide vectors, not both")
        if soft_weight and labels != "scores":
            raise InputError("soft labels need labels='scores': a column with teacher scores of each row's candidates")
        self.model = model
        self.directions, self.partition, self.in_batch, self.hard = tuple(directions), partition, in_batch, hard
        self.mask_duplicates, self.labels = mask_duplicates, labels
        self.guide_margin = guide_margin or MarginRule("absolute", 0.0)
        # In a list, the guide is no submodule: it is neither trained, nor saved, nor switched to training mode.
        self._guide = [guide.eval()] if guide is not None else []
        self.focal, self.focal_gradient, self.focal_normalise = focal, focal_gradient, focal_normalise
        self.mixed_pairs, self.mixed_list = mixed_pairs, mixed_list
        self.hard_weight, self.soft_weight = hard_weight, soft_weight
        self.teacher_temperature, self.standardise_teacher = teacher_temperature, standardise_teacher
        self.learn_temperature, self.gather = learn_temperature, gather
        self.scale = 1 / temperature
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.scale))) if learn_temperature else None
        self.mini_batch_size = mini_batch_size or 0
        self.uses_gradient_cache = mini_batch_size is not None
        self.masked: dict[str, float] = {}

    @property
    def temperature(self) -> float:
        scale = self._scale()
        return 1 / (scale.item() if isinstance(scale, Tensor) else scale)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        features = list(sentence_features)
        extra = {"keys": duplicate_keys(features) if self.mask_duplicates else None, "guide": None}
        if self._guide:
            extra["guide"] = guide_vectors(self._guide[0], self.model, features, self.mini_batch_size or 64)
        if self.uses_gradient_cache:
            return self.forward_cached(features, (labels, extra))
        embeddings = embed_columns(self.model, features)
        return self.compute_loss_from_embeddings(embeddings, labels, **extra)

    def calculate_loss(self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False) -> Tensor:
        """Second step of gradient caching: loss over the whole batch from embeddings in pieces."""
        given, extra = labels
        loss = self.compute_loss_from_embeddings([torch.cat(column) for column in reps], given, **extra)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def compute_loss_from_embeddings(
        self,
        embeddings: list[Tensor],
        labels: Tensor | None = None,
        keys: list[Tensor] | None = None,
        guide: list[Tensor] | None = None,
    ) -> Tensor:
        """The loss from vectors: columns of `(b, d)`; optional text keys `(b,)` and guide vectors per column."""
        if len(embeddings) < 2:
            raise InputError(f"InfoNCE needs a query and a positive column; got {len(embeddings)} column(s)")
        if self.labels is not None and labels is None:
            raise InputError(f"labels='{self.labels}' but the data has no label column")
        if self.labels == "guide" and labels is not None:
            guide = list(labels.unbind(1))
        if self.gather:
            embeddings = [gather_rows(column) for column in embeddings]
            labels = gather_rows(labels) if labels is not None else None
            keys = [gather_rows(column) for column in keys] if keys is not None else None
            guide = [gather_rows(column) for column in guide] if guide is not None else None
        vectors = [F.normalize(_wide(column), dim=-1) for column in embeddings]
        size, columns = len(vectors[0]), len(vectors)
        pool = torch.cat(vectors[1:])
        scale = self._scale()
        to_documents = vectors[0] @ pool.T
        blocks = {"query_to_doc": to_documents}
        if "query_to_query" in self.directions:
            blocks["query_to_query"] = vectors[0] @ vectors[0].T
        if "doc_to_query" in self.directions:
            blocks["doc_to_query"] = vectors[1] @ vectors[0].T
        if "doc_to_doc" in self.directions:
            blocks["doc_to_doc"] = vectors[1] @ vectors[1].T
        allowed = self._allowed(blocks, size, columns, keys, labels, guide)
        logits = {name: (block * scale).masked_fill(~allowed[name], -torch.inf) for name, block in blocks.items()}
        if columns > 2 and (self.mixed_pairs or self.mixed_list):
            synthetic = torch.einsum("bd,bcd->bc", vectors[0], self._mix(vectors))
            logits["query_to_doc"] = torch.cat([logits["query_to_doc"], synthetic * scale], dim=1)
        positive = to_documents.diagonal() * scale
        if self.partition == "joint":
            normaliser = torch.cat(list(logits.values()), dim=1).logsumexp(dim=1)
        else:
            normaliser = torch.stack([block.logsumexp(dim=1) for block in logits.values()]).mean(dim=0)
        log_p = positive - normaliser
        rows = -log_p
        if self.focal:
            rows = rows * focal_weights(log_p, self.focal, self.focal_gradient, self.focal_normalise)
        loss = self.hard_weight * rows.mean()
        if self.soft_weight:
            loss = loss + self.soft_weight * self._soft(vectors, labels, scale)
        return loss

    def _allowed(
        self,
        blocks: dict[str, Tensor],
        size: int,
        columns: int,
        keys: list[Tensor] | None,
        labels: Tensor | None,
        guide: list[Tensor] | None,
    ) -> dict[str, Tensor]:
        """Which items stand in each row's denominator, true = stands; the positive itself always does."""
        device = blocks["query_to_doc"].device
        own = torch.eye(size, dtype=torch.bool, device=device)
        others = ~own if self.in_batch else torch.zeros_like(own)
        hard = torch.ones_like(own) if self.hard == "shared" else own
        possible = dict.fromkeys(blocks, others)
        possible["query_to_doc"] = torch.cat([others, *[hard] * (columns - 2)], dim=1)
        if self.in_batch and "doc_to_query" in blocks and self.partition == "per_direction":
            possible["doc_to_query"] = others | own
        allowed = dict(possible)
        known = torch.zeros_like(own)
        if self.labels == "groups" and labels is not None:
            known = known | (labels[:, None] == labels[None, :])
        if keys is not None:
            crossed = keys[0][:, None] == keys[1]
            known = known | (keys[0][:, None] == keys[0]) | (keys[1][:, None] == keys[1]) | crossed | crossed.T
        for name in blocks:
            taken = known & ~own
            if name == "query_to_doc" and columns > 2:
                spent = torch.zeros(size, size * (columns - 2), dtype=torch.bool, device=device)
                if keys is not None:
                    negatives = torch.cat(keys[2:])
                    spent = (keys[0][:, None] == negatives) | (keys[1][:, None] == negatives)
                taken = torch.cat([taken, spent], dim=1)
            allowed[name] = allowed[name] & ~taken
        if guide is not None:
            closer = self._closer(guide, blocks)
            for name in blocks:
                keep = ~closer[name]
                keep[:, :size] |= own
                allowed[name] = allowed[name] & keep
        self.masked = {
            name: float((possible[name] & ~allowed[name]).sum() / possible[name].sum().clamp(min=1)) for name in blocks
        }
        allowed["query_to_doc"] = allowed["query_to_doc"].clone()
        allowed["query_to_doc"][:, :size] |= own
        return allowed

    def _closer(self, guide: list[Tensor], blocks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Where the guide finds an item closer than the row's own pair allows."""
        with torch.no_grad():
            found = {"query_to_doc": cosine_matrix(guide[0], torch.cat(guide[1:]))}
            threshold = self.guide_margin.threshold(found["query_to_doc"].diagonal()).unsqueeze(1)
            if "query_to_query" in blocks:
                found["query_to_query"] = cosine_matrix(guide[0], guide[0])
            if "doc_to_query" in blocks:
                found["doc_to_query"] = cosine_matrix(guide[1], guide[0])
            if "doc_to_doc" in blocks:
                found["doc_to_doc"] = cosine_matrix(guide[1], guide[1])
            return {name: scores > threshold for name, scores in found.items()}

    def _mix(self, vectors: list[Tensor]) -> Tensor:
        negatives = torch.stack(vectors[2:], dim=1)
        made = []
        if self.mixed_pairs and negatives.shape[1] > 1:
            weight, left, right = draw_pairs(len(negatives), negatives.shape[1], self.mixed_pairs, negatives.device)
            made.append(mix_pairs(negatives, weight, left, right))
        if self.mixed_list:
            made.append(mix_list(vectors[0], negatives, self.temperature).unsqueeze(1))
        return torch.cat(made, dim=1) if made else negatives[:, :0]

    def _soft(self, vectors: list[Tensor], labels: Tensor | None, scale: Tensor | float) -> Tensor:
        candidates = torch.stack(vectors[1:], dim=1)
        if labels is None or labels.shape != candidates.shape[:2]:
            got = None if labels is None else tuple(labels.shape)
            raise InputError(f"soft labels take scores of shape {tuple(candidates.shape[:2])} and got {got}")
        student = torch.einsum("bd,bcd->bc", vectors[0], candidates) * scale
        teacher = standardise(labels.to(student.dtype)) if self.standardise_teacher else labels.to(student.dtype)
        return kl_between_scores(student, teacher, 1.0, self.teacher_temperature).mean()

    def _scale(self) -> Tensor | float:
        return self.scale if self.log_scale is None else self.log_scale.exp().clamp(max=100.0)

    def get_config_dict(self) -> dict[str, Any]:
        names = (
            "temperature directions partition in_batch hard mask_duplicates labels focal focal_gradient "
            "focal_normalise mixed_pairs mixed_list hard_weight soft_weight teacher_temperature standardise_teacher "
            "learn_temperature gather"
        )
        config = {name: getattr(self, name) for name in names.split()}
        config["mini_batch_size"] = self.mini_batch_size or None
        config["guided"] = bool(self._guide) or self.labels == "guide"
        config["guide_margin"] = f"{self.guide_margin.kind} {self.guide_margin.margin}"
        return config

    @property
    def citation(self) -> str:
        return """
@misc{oord2018cpc,
    title={Representation Learning with Contrastive Predictive Coding},
    author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018},
    eprint={1807.03748},
    archivePrefix={arXiv}
}
"""


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
