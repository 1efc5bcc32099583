from __future__ import annotations

import json

import numpy as np
import pytest

from isometry.errors import InputError, NotFoundError, StorageError
from isometry.evaluation import Claim, Evidence, verdict

UP = Claim("A beats B.", "score", "A", "B", 0.01)
DOWN = Claim("A is faster than B.", "seconds", "A", "B", larger_is_better=False)
PUBLISHED = Claim("A reaches the published figure (within 0.02).", "score", "A", "paper", -0.02)
A = [0.50, 0.52, 0.51, 0.53, 0.49, 0.52, 0.50, 0.51, 0.52, 0.50]


def evidence(shift=0.0, claims=(UP, DOWN, PUBLISHED)):
    values = {
        "score": {"A": [a + shift for a in A], "B": [0.45] * 10, "paper": [0.5]},
        "seconds": {"A": [1.0 + 0.01 * i for i in range(10)], "B": [2.0] * 10},
    }
    return Evidence.judge("demo", 30, "tiny", "made up", range(10), claims, values, 1.5, {"more": 2})


def test_lines_effects_and_corrected_verdicts():
    found = evidence()
    assert [line.verdict for line in found.claims] == ["supports", "supports", "supports"]
    assert found.verdict == "supports"
    assert found.claims[0].effect == pytest.approx(np.mean(A) - 0.45)
    assert found.claims[1].effect == pytest.approx(2.0 - 1.045)  # positive: less time is better
    assert found.claims[2].effect == pytest.approx(np.mean(A) - 0.5)
    assert all(line.interval[0] < line.effect < line.interval[1] for line in found.claims)
    # ten pairs: the smallest two-sided p of sign flips is 2 / 1024, and Holm multiplies it by the lines left
    assert found.claims[0].p == pytest.approx(2 / 1024)
    assert found.claims[0].p_holm == pytest.approx(6 / 1024)
    assert evidence(-0.2).verdict == "contradicts"
    assert evidence(-0.05).verdict in ("inconclusive", "contradicts")


@pytest.mark.parametrize(
    ("low", "high", "p", "minimal", "expected"),
    [
        (0.02, 0.04, 0.001, 0.01, "supports"),
        (0.02, 0.04, 0.06, 0.01, "inconclusive"),
        (0.00, 0.04, 0.001, 0.01, "inconclusive"),
        (-0.04, -0.02, 0.001, 0.0, "contradicts"),
        (-0.04, -0.02, 0.06, 0.0, "inconclusive"),
        (-0.005, 0.0, 0.001, -0.01, "supports"),
    ],
)
def test_verdict_rule(low, high, p, minimal, expected):
    assert verdict(low, high, p, minimal) == expected


def test_json_has_the_promised_keys():
    found = evidence().to_dict()
    identity = {"recipe", "paper", "scale", "data", "seeds", "seconds", "peak_mb", "versions", "machine"}
    judged = {"baselines", "treatment", "metric", "values", "effect", "interval", "p", "verdict"}
    assert identity | judged <= found.keys()
    assert found["claims"][0] == {key: found[key] for key in found["claims"][0]}
    assert len(found["claims"]) == 3
    assert found["seeds"] == list(range(10))
    assert found["peak_mb"] > 10
    assert {"python", "isometry", "numpy"} <= found["versions"].keys()


def test_round_trip_and_no_left_over(tmp_path):
    path = evidence().save(tmp_path / "new")
    assert path.name == "demo.tiny.json"
    assert [child.name for child in path.parent.iterdir()] == ["demo.tiny.json"]
    assert Evidence.load(path).to_dict() == evidence().to_dict() | {"peak_mb": Evidence.load(path).peak_mb}


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(verdict="contradicts"),
        lambda e: e["claims"][1].update(verdict="inconclusive"),
        lambda e: e["claims"][0].update(effect=0.5),
        lambda e: e["claims"][0]["values"]["A"].__setitem__(0, 0.9),
        lambda e: e["claims"][0].update(minimal_effect=-1),
        lambda e: e["claims"].clear(),
        lambda e: e.pop("versions"),
        lambda e: e.update(recipe="other"),
        lambda e: e["claims"][0]["values"].update(A=["x"] * 10),
    ],
)
def test_an_edited_file_is_refused(tmp_path, change):
    path = evidence().save(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"demo\.tiny\.json"):
        Evidence.load(path)


def test_broken_and_absent_files(tmp_path):
    with pytest.raises(NotFoundError, match="no evidence"):
        Evidence.load(tmp_path / "demo.tiny.json")
    for content in (b"", b"[]", b"{", b"\xff\xfe"):
        (tmp_path / "demo.tiny.json").write_bytes(content)
        with pytest.raises(InputError, match="not evidence"):
            Evidence.load(tmp_path / "demo.tiny.json")


def test_what_was_not_measured_is_not_judged():
    with pytest.raises(InputError, match="measured no 'score' of 'B'"):
        Evidence.judge("demo", 1, "tiny", "d", range(3), [UP], {"score": {"A": [1, 2, 3]}}, 1.0)
    with pytest.raises(InputError, match="2 values of 'score' for 3 seeds"):
        Evidence.judge("demo", 1, "tiny", "d", range(3), [UP], {"score": {"A": [1, 2], "B": [1]}}, 1.0)
    with pytest.raises(InputError, match="at least one claim"):
        evidence(claims=())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, OSError)):
        evidence().save(tmp_path / "file")
