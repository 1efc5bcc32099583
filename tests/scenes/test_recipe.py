"""The recipe of paper 1 at its smallest scale."""

from __future__ import annotations

from isometry.recipes import load_recipe
from isometry.recipes.vr_gs import EIGHT, LIFTING, ONE, SPIKES, TWO


def test_tiny_proof_has_its_verdicts():
    evidence = load_recipe("vr-gs").prove("tiny", 5)
    verdicts = {line.claim.text: line.verdict for line in evidence.claims}
    assert evidence.verdict == "supports", "two levels beat one on covariances"
    assert verdicts["Two levels deform Gaussians better than none."] == "supports"
    assert verdicts["The shadow is as large as geometry says."] == "supports"
    spikes = next(line for line in evidence.claims if line.claim.metric == SPIKES and line.claim.baseline == ONE)
    assert sum(spikes.values[TWO]) < sum(spikes.values[ONE])
    lifting = next(line for line in evidence.claims if line.claim.metric == LIFTING)
    assert min(lifting.values[EIGHT]) > 0.97
    assert evidence.measured["frame_ms"] > 0 and evidence.measured["tets"] == 384
