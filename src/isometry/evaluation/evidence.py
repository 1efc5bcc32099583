"""Evidence: what a recipe measured, and the verdict that follows from it.

A verdict is computed, never typed: from the per-seed values, the claim's minimal effect and this room's statistics.
`Evidence.load` computes everything again and refuses a file whose figures do not follow from its values.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from isometry.errors import InputError, NotFoundError
from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.statistics import holm, paired_bootstrap

Verdict = Literal["supports", "contradicts", "inconclusive"]
SCALES = ("tiny", "laptop", "full")
ALPHA = 0.05
_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "torch",
    "sentence-transformers",
    "transformers",
    "faiss-cpu",
)


@dataclass(frozen=True)
class Claim:
    """One statement that a recipe will check, fixed before it runs.

    Args:
        text: the statement in a sentence.
        metric: what is measured, e.g. 'micro-F1, 10 % of the labels'.
        treatment: name of the system that the statement favours.
        baseline: name of the one it is compared with: another system, or a published figure.
        minimal_effect: smallest effect, in the metric's unit, that makes it true; below 0 for 'not worse by more'.
        larger_is_better: False where the metric is an error, a time or a size.
    """

    text: str
    metric: str
    treatment: str
    baseline: str
    minimal_effect: float = 0.0
    larger_is_better: bool = True


@dataclass(frozen=True)
class ClaimLine:
    """A claim with what was measured and what follows.

    Attributes:
        values: per-seed values of treatment and baseline, pair by pair; a published figure is a list of one.
        effect: mean gain of the treatment, positive when it is better.
        interval: 95 %.
        p: two-sided, against `claim.minimal_effect`.
        p_holm: p corrected over all lines of the evidence.
    """

    claim: Claim
    values: dict[str, list[float]]
    effect: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        return {
            "claim": self.claim.text,
            "metric": self.claim.metric,
            "larger_is_better": self.claim.larger_is_better,
            "baselines": [self.claim.baseline],
            "treatment": self.claim.treatment,
            "values": self.values,
            "minimal_effect": self.claim.minimal_effect,
            "effect": self.effect,
            "interval": list(self.interval),
            "p": self.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Evidence:
    """One run of a recipe at one scale: its claim lines, the first of them the paper's main one.

    Attributes:
        seeds: seeds of the runs, in the order of the values.
        data: what was measured on, in words.
        measured: further figures of the same run that carry no verdict, by name (unit in the name).
        seconds, peak_mb: wall time and peak resident memory of the process, MB = 10^6 bytes.
    """

    recipe: str
    paper: int
    scale: str
    data: str
    seeds: tuple[int, ...]
    claims: tuple[ClaimLine, ...]
    seconds: float
    peak_mb: float
    measured: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Of the first claim."""
        return self.claims[0].verdict

    @classmethod
    def judge(
        cls,
        recipe: str,
        paper: int,
        scale: str,
        data: str,
        seeds: Sequence[int],
        claims: Sequence[Claim],
        values: Mapping[str, Mapping[str, Sequence[float]]],
        seconds: float,
        measured: Mapping[str, float] | None = None,
    ) -> Evidence:
        """Evidence from `values[metric][system]` = one value per seed (or one, for a published figure)."""
        lines = _judged(claims, [_values_of(claim, values, len(seeds)) for claim in claims])
        return cls(
            recipe=recipe,
            paper=paper,
            scale=scale,
            data=data,
            seeds=tuple(int(seed) for seed in seeds),
            claims=lines,
            seconds=round(float(seconds), 3),
            peak_mb=peak_megabytes(),
            measured={name: float(value) for name, value in (measured or {}).items()},
            versions=package_versions(),
            machine=machine_in_words(),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `isometry prove`: the first claim's keys on top, all of them under 'claims'."""
        first = self.claims[0].to_dict()
        return {
            "recipe": self.recipe,
            "paper": self.paper,
            "scale": self.scale,
            "data": self.data,
            "seeds": list(self.seeds),
            **first,
            "claims": [line.to_dict() for line in self.claims],
            "measured": self.measured,
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
            "versions": self.versions,
            "machine": self.machine,
        }

    def save(self, folder: str | Path) -> Path:
        """Write `folder/<recipe>.<scale>.json`, whole or not at all."""
        path = Path(folder) / f"{self.recipe}.{self.scale}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, text.encode() + b"\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Evidence:
        """Read a file of `save` and compute its figures again.

        Raises:
            NotFoundError: no such file. InputError: not evidence, or a figure that does not follow from the values.
        """
        path = Path(path)
        if not path.is_file():
            raise NotFoundError(f"no evidence at {path}: 'isometry prove' writes it")
        try:
            found = json.loads(path.read_bytes())
            claims, values = [], []
            for line in found["claims"]:
                claims.append(
                    Claim(
                        line["claim"],
                        line["metric"],
                        line["treatment"],
                        line["baselines"][0],
                        float(line["minimal_effect"]),
                        bool(line["larger_is_better"]),
                    )
                )
                values.append({name: [float(v) for v in row] for name, row in line["values"].items()})
            evidence = cls(
                recipe=str(found["recipe"]),
                paper=int(found["paper"]),
                scale=str(found["scale"]),
                data=str(found["data"]),
                seeds=tuple(int(seed) for seed in found["seeds"]),
                claims=_judged(claims, values),
                seconds=float(found["seconds"]),
                peak_mb=float(found["peak_mb"]),
                measured=dict(found["measured"]),
                versions=dict(found["versions"]),
                machine=dict(found["machine"]),
            )
            same = _agree(evidence.to_dict(), found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"{path} is not evidence as 'isometry prove' writes it: {error}") from error
        if not same or path.name != f"{evidence.recipe}.{evidence.scale}.json":
            raise InputError(
                f"{path}: its figures do not follow from its values; run 'isometry prove {evidence.recipe}' again"
            )
        return evidence


def verdict(low: float, high: float, p: float, minimal_effect: float = 0.0) -> Verdict:
    """What follows from an interval of the effect and its Holm-corrected p.

    'supports' where p < 0.05 and the interval lies above the minimal effect, 'contradicts' where p < 0.05 and it lies
    below, else 'inconclusive'.
    """
    if p < ALPHA and low > minimal_effect:
        return "supports"
    if p < ALPHA and high < minimal_effect:
        return "contradicts"
    return "inconclusive"


def peak_megabytes() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def package_versions() -> dict[str, str]:
    """Versions of Python, of Isometry and of the numerical packages that are installed."""
    versions = {"python": platform.python_version(), "isometry": importlib.import_module("isometry").__version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine_in_words() -> dict[str, Any]:
    """Processor, cores and system; no name of the machine or of its user."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def _values_of(claim: Claim, values: Mapping[str, Mapping[str, Sequence[float]]], n: int) -> dict[str, list[float]]:
    found = {}
    for name in (claim.treatment, claim.baseline):
        row = values.get(claim.metric, {}).get(name)
        if row is None:
            raise InputError(f"the recipe measured no '{claim.metric}' of '{name}', which its claims name")
        found[name] = [float(value) for value in row]
        if len(found[name]) not in (1, n):
            raise InputError(f"'{name}' has {len(row)} values of '{claim.metric}' for {n} seeds")
    return found


def _judged(claims: Sequence[Claim], values: Sequence[dict[str, list[float]]]) -> tuple[ClaimLine, ...]:
    if not claims:
        raise InputError("evidence needs at least one claim")
    compared = []
    for claim, row in zip(claims, values, strict=True):
        treatment, baseline = row[claim.treatment], row[claim.baseline]
        n = max(len(treatment), len(baseline))
        treatment, baseline = [list(v) * n if len(v) == 1 else v for v in (treatment, baseline)]
        better, worse = (treatment, baseline) if claim.larger_is_better else (baseline, treatment)
        compared.append(paired_bootstrap(better, worse, null=claim.minimal_effect))  # type: ignore[arg-type]
    corrected = holm([result.p for result in compared])
    return tuple(
        ClaimLine(
            claim,
            row,
            result.effect,
            (result.low, result.high),
            result.p,
            p,
            verdict(result.low, result.high, p, claim.minimal_effect),
        )
        for claim, row, result, p in zip(claims, values, compared, corrected, strict=True)
    )


def _agree(computed: Any, found: Any) -> bool:
    """Equal up to the last digits of floats: another build of numpy may add in another order."""
    if isinstance(computed, dict):
        return (
            isinstance(found, dict)
            and computed.keys() <= found.keys()
            and all(_agree(value, found[key]) for key, value in computed.items())
        )
    if isinstance(computed, (list, tuple)):
        return isinstance(found, list) and len(found) == len(computed) and all(map(_agree, computed, found))
    if isinstance(computed, float):
        return isinstance(found, (int, float)) and math.isclose(computed, found, rel_tol=1e-6, abs_tol=1e-9)
    return bool(computed == found)
