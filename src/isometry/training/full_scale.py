"""The papers' own trainings: their models, data, batches and learning rates, as runs that `train_stages` takes.

Names are those of the hub. What a paper's note leaves open is said in `departures`; nothing here was run by us at this size.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isometry.encoders.text.ladder import STARBUCKS
from isometry.errors import NotFoundError
from isometry.training.run import GIST_DIRECTIONS, TrainingRun


@dataclass(frozen=True)
class FullScale:
    """One paper's training.

    Args:
        paper: its number in the seed list.
        stages: runs in order, each from the model of the one before, or side by side where `merge` joins them. Their
            `data` are hub names; give files of your own with the same columns.
        evaluation: what the paper judges by; `isometry eval MODEL --suite …` where it is a benchmark of mteb.
        machine: what the paper used, where it is known.
        departures: where these runs differ from the paper.
        merge: settings of `merge_models` that join the stages' models.
    """

    paper: int
    stages: tuple[TrainingRun, ...]
    evaluation: str
    machine: str = ""
    departures: tuple[str, ...] = ()
    merge: Mapping[str, object] = field(default_factory=dict)


MISTRAL, BERT = "mistralai/Mistral-7B-v0.1", "google-bert/bert-base-uncased"
_NLI, _MARCO = "hub:sentence-transformers/all-nli/triplet", "hub:Tevatron/msmarco-passage"
_LORA = {"lora": 16, "lora_alpha": 32, "lora_dropout": 0.1, "lora_layers": "all"}

_POOLING = TrainingRun(
    recipe="pooling",
    model=MISTRAL,
    data="hub:yixuantt/ir_data",
    pooling="multi-layer",
    latents=768,
    heads=32,
    head_dimension=2048,
    attention="bidirectional",
    **_LORA,  # type: ignore[arg-type]
    steps=1000,
    batch_size=2048,
    mini_batch_size=1,
    learning_rate=1e-5,
    warmup=0.1,
    precision="bfloat16",
    max_tokens=1024,
    length_window=1,
)
_NV_EMBED = TrainingRun(
    recipe="nv-embed",
    model=MISTRAL,
    data=_MARCO,
    pooling="latent",
    latents=512,
    heads=8,
    head_dimension=4096,
    attention="bidirectional",
    instruction="Given a question, retrieve passages that answer the question",
    mine=7,
    miner="intfloat/e5-mistral-7b-instruct",
    **_LORA,  # type: ignore[arg-type]
    steps=20_000,
    batch_size=128,
    learning_rate=2e-5,
    warmup=0.025,
    precision="bfloat16",
    max_tokens=512,
    length_window=1,
)
_KALM = TrainingRun(
    recipe="kalm",
    model="Qwen/Qwen2-0.5B",
    data="hub:HIT-TMG/KaLM-embedding-pretrain-data",
    pooling="mean",
    attention="bidirectional",
    temperature=0.01,
    batch_size=1024,
    mini_batch_size=32,
    learning_rate=1e-5,
    precision="bfloat16",
    max_tokens=512,
    length_window=1,
)
_POSITION = TrainingRun(
    recipe="contrastive",
    model=BERT,
    data=_NLI,
    temperature=0.02,
    in_batch=False,
    hard="own",
    epochs=3,
    batch_size=256,
    learning_rate=1e-5,
    length_window=1,
)

FULL_SCALE: dict[str, FullScale] = {
    "pooling": FullScale(
        2,
        (_POOLING,),
        "MTEB(eng, v1): STS, retrieval, classification, clustering",
        departures=(
            "the batch of 2,048 rows is one pool of negatives by gradient caching; the published code accumulates "
            "single rows on several devices, so that its negatives are the devices' rows only",
        ),
    ),
    "starbucks": FullScale(
        3,
        (
            TrainingRun(
                recipe="smae",
                model=BERT,
                data="hub:HuggingFaceFW/fineweb/sample-100BT",
                loss="masked",
                sizes="ladder",
                ladder=tuple((size.layers, size.dimensions) for size in STARBUCKS),
                batch_size=512,
                learning_rate=1e-4,
                warmup=0.05,
                schedule="cosine",
                weight_decay=1e-3,
                precision="bfloat16",
                max_tokens=512,
                length_window=1,
            ),
            TrainingRun(
                recipe="starbucks",
                model=BERT,
                data=_NLI,
                sizes="ladder",
                ladder=tuple((size.layers, size.dimensions) for size in STARBUCKS),
                batch_size=128,
                learning_rate=5e-5,
                precision="bfloat16",
                length_window=1,
            ),
        ),
        "STS-B, STS12 to STS16, SICK-R at every size of the ladder",
        "8 GPUs for the pre-training",
        ("the paper's float16 is bfloat16 here", "a random crop of long texts is their beginning here"),
    ),
    "nv-embed": FullScale(
        5,
        (
            _NV_EMBED,
            replace(_NV_EMBED, in_batch=False, hard="own", steps=18_000, learning_rate=1.5e-5, warmup=0.028),
        ),
        "MTEB(eng, v1)",
        "8 x 80 GB",
        (
            "the paper blends some 20 retrieval sets, in stage 2 also classes, clusters and graded pairs; the data named "
            "here is one of them: give the blend as a file, with a column 'instruction' for each task",
            "steps, warm-up and rates are remembered from the paper, not read",
        ),
    ),
    "kalm": FullScale(
        6,
        (
            _KALM,
            replace(
                _KALM,
                data=_MARCO,
                focal=0.5,
                mixed_pairs=1,
                mixed_list=True,
                mine=7,
                mine_margin=0.0,
                mine_ranks=(50, 100),
                mine_choose="random",
                instruction="Given a query, retrieve documents that answer the query",
            ),
        ),
        "MTEB(eng, v1) and MTEB(cmn, v1)",
        departures=(
            "the fine-tuning data are 6 million examples of over 100 kinds; the data named here is one of them",
            "the Matryoshka widths and the distillation of version 2.5 are left out",
        ),
    ),
    "self-positioning": FullScale(
        10,
        (_POSITION, replace(_POSITION, data=_MARCO)),
        "all English STS and retrieval tasks of MTEB",
        departures=("of the four retrieval sets one is named",),
        merge={
            "method": "self-positioning",
            "base": BERT,
            "mu": 0.05,
            "steps": 1000,
            "batch_size": 32,
            "learning_rate": 5e-3,
            "temperature": 0.02,
        },
    ),
    "2dmse": FullScale(
        23,
        (
            TrainingRun(
                recipe="2dmse",
                model=BERT,
                data="hub:SeanLee97/nli_for_simcse",
                sizes="sampled",
                batch_size=128,
                learning_rate=5e-5,
                precision="bfloat16",
                max_tokens=75,
                length_window=1,
            ),
        ),
        "STS-B, STS12 to STS16, SICK-R at every layer and width",
        departures=("the base loss is InfoNCE, the paper's AnglE", "batch and rate are those of an independent run"),
    ),
    "lg-anna": FullScale(
        42,
        (
            TrainingRun(
                recipe="lg-anna",
                model=MISTRAL,
                data=_MARCO,
                pooling="last-token",
                attention="causal",
                instruction="Given a web search query, retrieve relevant passages that answer the query",
                mine=7,
                mine_margin=0.05,
                miner="BAAI/bge-m3",
                soft_weight=1.0,
                soft_temperature=0.05,
                **_LORA,  # type: ignore[arg-type]
                learning_rate=1e-4,
                batch_size=256,
                mini_batch_size=4,
                precision="bfloat16",
                max_tokens=512,
                length_window=1,
            ),
        ),
        "MTEB(eng, v2)",
        departures=(
            "rank, rate, batch and how the soft labels enter the loss are not public: these are ours",
            "the paper's teacher is BM25 and dense search under a reranker; a dense model stands for it",
        ),
    ),
    "sitemb": FullScale(
        48,
        (
            TrainingRun(
                recipe="sitemb",
                model="BAAI/bge-m3",
                data="hub:deepmind/narrativeqa",
                loss="margin",
                mine=10,
                mine_margin=0.0,
                mine_choose="random",
                batch_size=80,
                learning_rate=2e-5,
                weight_decay=0.05,
                hold_out=0.01,
                patience=3,
                save_every=180,
                max_tokens=8192,
                precision="bfloat16",
            ),
            TrainingRun(
                recipe="sitemb",
                model="Qwen/Qwen3-Embedding-8B",
                data="hub:deepmind/narrativeqa",
                instruction="Given a question on a story, retrieve the passages that answer it",
                temperature=0.01,
                mine=13,
                mine_margin=0.0,
                mine_choose="random",
                lora=128,
                lora_alpha=256,
                lora_dropout=0.05,
                epochs=2,
                batch_size=40,
                accumulate=4,
                learning_rate=1e-4,
                schedule="cosine",
                precision="bfloat16",
                max_tokens=8192,
            ),
        ),
        "plot retrieval within books, recall at 10, 20 and 50",
        "2 GPUs for the first, 8 for the second",
        (
            "the book notes are not public, so the pairs come from NarrativeQA: give a file of questions and chunks, each "
            "with its context behind it (`isometry.encoders.text.situate`), and negatives of the same book",
            "the two stages are versions 1 and 1.5, each from its own start",
        ),
    ),
    "gistembed": FullScale(
        55,
        (
            TrainingRun(
                recipe="gistembed",
                model="BAAI/bge-base-en-v1.5",
                data="hub:avsolatorio/medi-data-mteb_avs_triplets",
                directions=GIST_DIRECTIONS,
                guide="WhereIsAI/UAE-Large-V1",
                temperature=0.01,
                steps=103_500,
                batch_size=32,
                learning_rate=5e-6,
                precision="bfloat16",
                max_tokens=512,
                length_window=1,
            ),
        ),
        "MTEB(eng, v1)",
    ),
}
"""Papers 02, 03, 05, 06, 10, 23, 42, 48 and 55; paper 20 trains nothing (`isometry eval --suite 'MTEB(Multilingual, v2)'`)."""


def full_scale(name: str) -> FullScale:
    """The paper's own training by the name of its recipe.

    Raises:
        NotFoundError: no such one; the nearest is named.
    """
    if name not in FULL_SCALE:
        near = difflib.get_close_matches(name, FULL_SCALE, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(FULL_SCALE)}"
        raise NotFoundError(f"no training of a paper is called '{name}'; {hint}")
    return FULL_SCALE[name]
