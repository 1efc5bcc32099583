"""Results as files of mteb's shape, in the folders of its result cache, so that mteb reads them and we go on from them.

    OUT/results/<model>/<revision>/<task>.json and model_meta.json

What mteb does not know stands beside its keys: per-item values in every subset's scores, and under 'isometry' what the
figures depend on (encoder with prompts and digest, versions).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.evidence import package_versions
from isometry.evaluation.tasks import Result, SubsetResult
from isometry.types import EncoderDescription

# Raised when a metric's definition changes: results of another one are computed again.
DEFINITION = 1
# ISO 639-1 and the codes of the local data sets, as mteb writes languages
_LANGUAGES = {
    "ar": "ara-Arab", "cs": "ces-Latn", "de": "deu-Latn", "el": "ell-Grek", "en": "eng-Latn", "es": "spa-Latn",
    "fr": "fra-Latn", "hi": "hin-Deva", "it": "ita-Latn", "ja": "jpn-Jpan", "nl": "nld-Latn", "pl": "pol-Latn",
    "pt": "por-Latn", "ro": "ron-Latn", "ru": "rus-Cyrl", "th": "tha-Thai", "tr": "tur-Latn", "vi": "vie-Latn",
    "zh": "cmn-Hans", "eng": "eng-Latn",
}  # fmt: skip


def result_path(folder: Path, about: EncoderDescription, task: str) -> Path:
    """Where the result of a model on a task lies under `folder`."""
    return folder / "results" / _safe(about.name) / about.fingerprint / f"{_safe(task)}.json"


def write_result(
    folder: Path, about: EncoderDescription, result: Result, revision: str, seconds: float, split: str = "test"
) -> Path:
    """Write one result, whole or not at all.

    Args:
        revision: `fingerprint` of the task.
        seconds: wall time of judging, encoding included.
    """
    scores = [
        {
            "hf_subset": subset,
            "languages": [_LANGUAGES.get(code, code) for code in subset.split("-")],
            "main_score": one.value,
            **one.metrics,
            result.metric: one.value,
            "per_item": one.per_item.tolist(),
        }
        for subset, one in result.subsets.items()
    ]
    document = {
        "dataset_revision": revision,
        "task_name": result.task,
        "mteb_version": None,
        "scores": {split: scores},
        "evaluation_time": seconds,
        "kg_co2_emissions": None,
        "isometry": {
            "definition": DEFINITION,
            "kind": result.kind,
            "metric": result.metric,
            "encoder": about.to_dict(),
            "versions": package_versions(),
        },
    }
    path = result_path(folder, about, result.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"name": f"isometry/{_safe(about.name)}", "revision": about.fingerprint, "embed_dim": about.dimension}
    write_atomically(path.parent / "model_meta.json", json.dumps(meta, indent=1).encode() + b"\n")
    write_atomically(path, json.dumps(document, allow_nan=False, ensure_ascii=False).encode() + b"\n")
    return path


def read_result(folder: Path, about: EncoderDescription, task: str, revision: str) -> Result | None:
    """What `write_result` wrote for the same encoder, task data and metric definition; None where there is nothing."""
    path = result_path(folder, about, task)
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        ours = found["isometry"]
        if found["dataset_revision"] != revision or ours["definition"] != DEFINITION or found["task_name"] != task:
            return None
        if ours["encoder"]["fingerprint"] != about.fingerprint:
            return None
        (scores,) = found["scores"].values()
        known = {"hf_subset", "languages", "main_score", "per_item"}
        subsets = {
            one["hf_subset"]: SubsetResult(
                float(one["main_score"]),
                np.asarray(one["per_item"], dtype=np.float64),
                {name: float(value) for name, value in one.items() if name not in known},
            )
            for one in scores
        }
        return Result(task, str(ours["kind"]), str(ours["metric"]), subsets)
    except (ValueError, KeyError, TypeError, AttributeError):
        # a file of somebody else, or one that a person edited: it is computed again and written over
        return None


def _safe(name: str) -> str:
    return re.sub(r"[^\w.=,#-]+", "_", name).strip("_.") or "model"
