"""What a training run is: a frozen dataclass that can be written beside the model, read back and run again."""

from __future__ import annotations

import difflib
import json
import math
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from isometry.errors import InputError, NotFoundError

DISTILLATION = ("kl", "margin-mse", "layers")
"""Losses that have a teacher."""


@dataclass(frozen=True)
class TrainingRun:
    """All that decides the weights a run ends with, on one machine.

    Args:
        recipe: name of the preset it started from.
        model: "default", a model folder, or a hub name that is on this machine; with "#layers=2,dimensions=96" behind
            it, its first layers and coordinates.
        data: training file.
        columns: "" or other names of its columns, as "anchor=title,positive=abstract".
        more_data: further files with the same columns (pairs).
        mixing: 1 = every batch from one of them, 0 = rows drawn from all alike, between = that share of each batch
            (06).
        test: file the model is judged on, for the leak check; None = not given.
        drop_leaks: leave out what is in it, instead of stopping.
        loss: "info-nce" for pairs and classes, "cosent" for scores, "margin" (paper 48) for rows with negatives,
            "masked" (paper 03) for plain texts: masked-autoencoder pre-training of all sizes of `ladder`; from `teacher`
            "kl" and "margin-mse" (its scores of a row's candidates) and "layers" (its layers' vectors of any texts).
        teacher: model that is learned from; "" = none.
        temperature, in_batch, hard, focal, mixed_pairs, mixed_list, directions: see `InfoNCE`.
        learn_temperature: the temperature is where it starts.
        guide: "" or a guide model; guide_margin: absolute margin of its mask (paper 55).
        mine: hard negatives mined per row; mine_margin: how far they stay below the row's own positive, 0 = no matter;
            mine_rule: that margin is a share of the positive's score (05, 42) or absolute; mine_ranks: the window of
            ranks they come from; mine_choose: its "hardest" or "random" ones (06).
        miner: "" = the starting model finds them, or another model.
        corpus: what is mined beside the data's own positives: a file with a column of documents, or the folder of a
            collection, whose encoder is the miner then.
        consistent: rows whose positive the miner does not find among so many texts nearest to the anchor are left out
            (06: 50); 0 = all stay.
        soft_weight: of KL to the miner's scores of each row's own candidates (42); soft_temperature: of the softmax over
            a miner's or teacher's scores.
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
        lora: rank of low-rank adapters, merged at the end; 0 = train all weights.
        lora_alpha: 0 = twice the rank.
        lora_layers: "attention" = on its projections, "all" = on the feed-forward's too.
        steps: 0 = by `epochs`.
        batch_size: rows a step, of all processes.
        accumulate: batches to a step of the weights.
        length_window: batches whose rows are sorted by length together, to pad less; 1 = rows as they come.
        schedule: the learning rate's way down after `warmup`, a share of the steps.
        hold_out: share of rows kept for the evaluation loss; 0 = no evaluation.
        patience: evaluations without gain until the run stops and the best weights are taken; 0 = never.
        mini_batch_size: gradient caching; 0 = off.
        max_tokens: 0 = the model's own limit.
        save_every: steps between checkpoints (and evaluations); 0 = ten of them.
    """

    recipe: str = "contrastive"
    model: str = "default"
    data: str = ""
    columns: str = ""
    more_data: tuple[str, ...] = ()
    mixing: float = 0.0
    test: str | None = None
    drop_leaks: bool = False
    loss: Literal["info-nce", "cosent", "margin", "masked", "kl", "margin-mse", "layers"] = "info-nce"
    teacher: str = ""
    temperature: float = 0.05
    learn_temperature: bool = False
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
    mine_rule: Literal["relative", "absolute"] = "relative"
    mine_ranks: tuple[int, int] = (0, 100)
    mine_choose: Literal["hardest", "random"] = "hardest"
    miner: str = ""
    corpus: str = ""
    consistent: int = 0
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
        for name, hint in _hints().items():
            _check_type(name, getattr(self, name), hint)
        if self.batch_size < 2 or self.epochs <= 0 or self.learning_rate <= 0 or self.temperature <= 0:
            raise InputError("a run needs a batch of at least 2, and epochs, learning rate and temperature above 0")
        for name in _COUNTS:
            if getattr(self, name) < 0:
                raise InputError(f"{name} is at least 0, not {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is the share of the steps, 0 to 1, not {self.warmup}")
        if not 0 <= self.mixing <= 1:
            raise InputError(f"mixing is the share of a batch from one data set, 0 to 1, not {self.mixing}")
        if not 0 <= self.hold_out < 1:
            raise InputError(f"the share of rows held out is at least 0 and below 1, not {self.hold_out}")
        if self.patience and not self.hold_out:
            raise InputError("stopping early needs rows held out to judge by: give --hold-out, e.g. 0.05")
        if self.sizes != "full" and (self.mini_batch_size or self.guide or self.pooling == "multi-layer"):
            raise InputError("a size ladder goes with neither gradient caching, a guide model nor multi-layer pooling")
        if self.beside and self.sizes != "full":
            raise InputError("a residual pair has one size")
        if self.accumulate < 1 or self.length_window < 1:
            raise InputError("a step takes at least one batch, and a window of lengths one batch or more")
        if self.soft_weight and (not self.mine or self.loss != "info-nce"):
            raise InputError("soft labels are the miner's scores of mined negatives: set mine, e.g. 7, with info-nce")
        if self.loss != "info-nce" and (self.guide or self.mini_batch_size or self.focal or self.learn_temperature):
            raise InputError(
                f"guide, focal weights, gradient caching and a learned temperature belong to info-nce, not to {self.loss}"
            )
        if (self.loss in DISTILLATION) != bool(self.teacher):
            raise InputError(f"a teacher goes with the losses {', '.join(DISTILLATION)}, and each of them needs one")
        if self.teacher and self.sizes != "full":
            raise InputError("distillation trains one size: cut the model it starts from, e.g. default#layers=2")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, values: Any, where: str) -> TrainingRun:
        """Settings as JSON holds them.

        Raises:
            InputError: no object, or a key that no run has (the nearest is named), or a value of another kind.
        """
        if not isinstance(values, dict):
            raise InputError(f"{where} holds no run: an object of settings is expected")
        for key in values:
            setting(key, where)
        return cls(**{key: tuple_of(value) for key, value in values.items()})

    @classmethod
    def from_json(cls, path: str | Path) -> TrainingRun:
        """Read a file of one run; see `read_runs`."""
        runs = read_runs(path)
        if len(runs) > 1:
            raise InputError(f"'{path}' holds {len(runs)} runs, and one is expected")
        return runs[0]


def read_runs(path: str | Path) -> tuple[TrainingRun, ...]:
    """The runs of a file: one object of settings, or a list of them, which are stages.

    Raises:
        NotFoundError: no file. InputError: not JSON, or no runs.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"no run file '{path}'") from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is not readable JSON: {error}") from error
    if isinstance(values, list) and values:
        return tuple(
            TrainingRun.from_dict(one, f"'{path}', stage {number}") for number, one in enumerate(values, start=1)
        )
    return (TrainingRun.from_dict(values, f"'{path}'"),)


def setting(name: str, where: str = "") -> str:
    """The name, if a run has a setting of that name.

    Raises:
        InputError: it has not; the nearest is named.
    """
    known = _hints()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"{where + ': ' if where else ''}a run has no setting '{name}'{hint}")
    return name


_COUNTS = (
    "mine",
    "mine_margin",
    "soft_weight",
    "consistent",
    "focal",
    "mixed_pairs",
    "latents",
    "heads",
    "head_dimension",
    "examples",
    "freeze",
    "lora",
    "lora_alpha",
    "lora_dropout",
    "steps",
    "mini_batch_size",
    "weight_decay",
    "max_tokens",
    "patience",
    "save_every",
)


@cache
def _hints() -> dict[str, Any]:
    hints = get_type_hints(TrainingRun)
    return {field.name: hints[field.name] for field in fields(TrainingRun)}


def tuple_of(value: Any) -> Any:
    """JSON's lists as the tuples that a run holds."""
    return tuple(tuple_of(one) for one in value) if isinstance(value, list) else value


def _check_type(name: str, value: Any, hint: Any) -> None:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in parts:
            raise InputError(f"{name} is one of {', '.join(parts)}, not '{value}'")
        return
    if not _fits(value, hint):
        kind = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
        raise InputError(f"the setting {name} takes {_KINDS.get(kind, kind)}, not {value!r}")


_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "a text"}


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        each = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(each) == len(value) and all(_fits(one, part) for one, part in zip(value, each, strict=True))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


GIST_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_doc")

_STUDENT: dict[str, Any] = {"model": "default#layers=2", "teacher": "default", "learning_rate": 1e-4}

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
    "distil": TrainingRun(recipe="distil", loss="kl", soft_temperature=0.05, mine=7, miner="default", **_STUDENT),
    "distil-margins": TrainingRun(recipe="distil-margins", loss="margin-mse", mine=3, miner="default", **_STUDENT),
    "distil-layers": TrainingRun(recipe="distil-layers", loss="layers", **_STUDENT),
}
"""A run per technique; every setting can be changed. The papers' own values are in `FULL_SCALE`."""


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
