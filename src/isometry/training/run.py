"""What a training run is: a frozen dataclass that can be written beside the model, read back and run again."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from isometry.errors import InputError, NotFoundError


@dataclass(frozen=True)
class TrainingRun:
    """All that decides the weights a run ends with, on one machine.

    Args:
        recipe: name of the preset it started from.
        model: "default", a model folder, or a hub name that is on this machine.
        data: training file. more_data: further ones with the same columns (pairs). mixing: 1 = every batch from one of
            them, 0 = rows drawn from all alike, between = that share of each batch (06). test: file the model is judged
            on, for the leak check. None = not given.
        loss: "info-nce" for pairs and classes, "cosent" for scores, "margin" (paper 48) for rows with negatives,
            "masked" (paper 03) for plain texts: masked-autoencoder pre-training of all sizes of `ladder`.
        temperature, in_batch, hard, focal, mixed_pairs, mixed_list, directions: see `InfoNCE`.
        guide: "" or a guide model; guide_margin: absolute margin of its mask (paper 55).
        mine: hard negatives mined per row; mine_margin: their relative margin (05, 42); mine_ranks: the window of
            ranks they come from; mine_choose: its "hardest" or "random" ones (06). miner: "" = the starting model finds
            them, or another model.
        soft_weight: of KL to the miner's scores of each row's own candidates (42); soft_temperature: of its softmax.
        sizes: "full" = the whole model only, "ladder" = all sizes of `ladder` (03), "sampled" = 2DMSE (23).
        ladder: (layers, dimensions) pairs, the last the full size; () takes thirds of the model.
        pooling: "keep", or "mean", "weighted" (later tokens more), "last-token", "latent" (05), "attention" (02),
            "multi-layer" (02), trained anew; latents, heads, head_dimension: of the last three, 0 = 32, the most of 8
            that divide, width / heads.
        attention: "keep", "causal" or "bidirectional".
        instruction: put before every anchor in the pattern of papers 05 and 48; rows with their own keep it.
        examples: most worked examples put before an anchor (42): other rows of the same task, 0 to so many for each row.
        beside: "" or a fixed encoder of the chunk alone whose vector is added to this model's, which reads chunk and
            context (48): see `residual_pair`.
        freeze: lower layers (and the token embeddings) that stay as they are, 0 = none.
        lora: rank of low-rank adapters, merged at the end; 0 = train all weights. lora_alpha: 0 = twice the rank.
            lora_layers: "attention" = on its projections, "all" = on the feed-forward's too.
        steps: 0 = by `epochs`. batch_size: rows a step, of all processes. accumulate: batches to a step of the weights.
            length_window: batches whose rows are sorted by length together, to pad less; 1 = rows as they come.
            schedule: the learning rate's way down after `warmup`, a share of the steps.
        hold_out: share of rows kept for the evaluation loss; 0 = no evaluation.
        patience: evaluations without gain until the run stops and the best weights are taken; 0 = never.
        mini_batch_size: gradient caching; 0 = off. max_tokens: 0 = the model's own limit.
        save_every: steps between checkpoints (and evaluations); 0 = ten of them.
    """

    recipe: str = "contrastive"
    model: str = "default"
    data: str = ""
    more_data: tuple[str, ...] = ()
    mixing: float = 0.0
    test: str | None = None
    loss: Literal["info-nce", "cosent", "margin", "masked"] = "info-nce"
    temperature: float = 0.05
    directions: tuple[str, ...] = ("query_to_doc",)
    in_batch: bool = True
    hard: Literal["shared", "own"] = "shared"
    focal: float = 0.0
    mixed_pairs: int = 0
    mixed_list: bool = False
    guide: str = ""
    guide_margin: float = 0.0
    mine: int = 0
    mine_margin: float = 0.05
    mine_ranks: tuple[int, int] = (0, 100)
    mine_choose: Literal["hardest", "random"] = "hardest"
    miner: str = ""
    soft_weight: float = 0.0
    soft_temperature: float = 1.0
    sizes: Literal["full", "ladder", "sampled"] = "full"
    ladder: tuple[tuple[int, int], ...] = ()
    pooling: Literal["keep", "mean", "weighted", "last-token", "latent", "attention", "multi-layer"] = "keep"
    latents: int = 0
    heads: int = 0
    head_dimension: int = 0
    attention: Literal["keep", "causal", "bidirectional"] = "keep"
    instruction: str = ""
    examples: int = 0
    beside: str = ""
    freeze: int = 0
    lora: int = 0
    lora_alpha: int = 0
    lora_dropout: float = 0.0
    lora_layers: Literal["attention", "all"] = "attention"
    epochs: float = 1.0
    steps: int = 0
    batch_size: int = 64
    accumulate: int = 1
    length_window: int = 16
    mini_batch_size: int = 0
    learning_rate: float = 2e-5
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    precision: Literal["float32", "bfloat16"] = "float32"
    max_tokens: int = 0
    hold_out: float = 0.0
    patience: int = 0
    save_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.epochs <= 0 or self.learning_rate <= 0 or self.temperature <= 0:
            raise InputError("a run needs a batch of at least 2, and epochs, learning rate and temperature above 0")
        if not 0 <= self.mixing <= 1:
            raise InputError(f"mixing is the share of a batch from one data set, 0 to 1, not {self.mixing}")
        if not 0 <= self.hold_out < 1:
            raise InputError(f"the share of rows held out is at least 0 and below 1, not {self.hold_out}")
        if self.patience and not self.hold_out:
            raise InputError("stopping early needs rows held out to judge by: give --hold-out, e.g. 0.05")
        if self.sizes != "full" and (self.mini_batch_size or self.guide or self.pooling == "multi-layer"):
            raise InputError("a size ladder goes with neither gradient caching, a guide model nor multi-layer pooling")
        if self.examples < 0 or (self.beside and self.sizes != "full"):
            raise InputError("examples are 0 or more, and a residual pair has one size")
        if self.accumulate < 1 or self.length_window < 1:
            raise InputError("a step takes at least one batch, and a window of lengths one batch or more")
        if self.soft_weight and (not self.mine or self.loss != "info-nce"):
            raise InputError("soft labels are the miner's scores of mined negatives: set mine, e.g. 7, with info-nce")
        if self.loss != "info-nce" and (self.guide or self.mini_batch_size or self.focal):
            raise InputError(f"guide, focal weights and gradient caching belong to info-nce, not to {self.loss}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, path: str | Path) -> TrainingRun:
        """Read a run file.

        Raises:
            NotFoundError: no file. InputError: not JSON, or a key that no run has (the nearest is named).
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NotFoundError(f"no run file '{path}'") from error
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' is not readable JSON: {error}") from error
        if not isinstance(values, dict):
            raise InputError(f"'{path}' holds no run: an object of settings is expected")
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise InputError(f"'{path}': a run has no setting '{key}'{hint}")
        values["ladder"] = tuple((int(n), int(d)) for n, d in values.get("ladder", ()))
        values["mine_ranks"] = tuple(values.get("mine_ranks", (0, 100)))
        values["more_data"] = tuple(values.get("more_data", ()))
        values["directions"] = tuple(values.get("directions", ("query_to_doc",)))
        return cls(**values)


GIST_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_doc")

PRESETS: dict[str, TrainingRun] = {
    "contrastive": TrainingRun(),
    "graded": TrainingRun(recipe="graded", loss="cosent"),
    "pooling": TrainingRun(recipe="pooling", pooling="multi-layer", learning_rate=1e-4),
    "starbucks": TrainingRun(recipe="starbucks", sizes="ladder", learning_rate=5e-5),
    "smae": TrainingRun(
        recipe="smae", loss="masked", sizes="ladder", learning_rate=1e-4, warmup=0.05, weight_decay=1e-3
    ),
    "nv-embed": TrainingRun(
        recipe="nv-embed", pooling="latent", in_batch=False, hard="own", mine=3, learning_rate=1e-4
    ),
    "kalm": TrainingRun(recipe="kalm", focal=0.5, mixed_pairs=1, mixed_list=True, mine=7, temperature=0.02),
    "2dmse": TrainingRun(recipe="2dmse", sizes="sampled", learning_rate=5e-5),
    "lg-anna": TrainingRun(recipe="lg-anna", mine=7, mine_margin=0.05),
    "sitemb": TrainingRun(recipe="sitemb", loss="margin", mine=8, mine_margin=0.0),
    "gistembed": TrainingRun(recipe="gistembed", directions=GIST_DIRECTIONS, guide="default", temperature=0.02),
}
"""A run per technique; every setting can be changed. Paper-scale values are in each recipe's page."""


def preset(name: str, **changes: Any) -> TrainingRun:
    """The preset of that name with some settings changed.

    Raises:
        NotFoundError: no such preset; the nearest is named.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PRESETS)}"
        raise NotFoundError(f"no training recipe '{name}'; {hint}")
    return replace(PRESETS[name], **changes)
