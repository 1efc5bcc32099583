"""A tiny random CLIP of the real classes: images and texts into one space."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from isometry.encoders import load_encoder
from isometry.errors import InputError, RecordError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(97 + i) for i in range(26)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 60, "max_position_embeddings": 16, "eos_token_id": 53, "bos_token_id": 52, "pad_token_id": 53}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**sizes, **text}, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=24
    )
    CLIPModel(config).save_pretrained(folder / "raw")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder / "raw")
    model = SentenceTransformer(str(folder / "raw"), device="cpu")
    model.save(str(folder / "model"))
    return load_encoder(folder / "model"), model


@pytest.fixture
def pictures():
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def test_images_of_every_form(clip, pictures, tmp_path):
    encoder, model = clip
    assert encoder.describe().modalities == ("text", "image") and encoder.describe().dimension == 24
    expected = model.encode(pictures)
    np.testing.assert_allclose(encoder.encode_images(pictures), expected, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(iter(pictures)), expected, atol=2e-5)
    pictures[1].save(tmp_path / "one.png")
    stream = io.BytesIO()
    pictures[2].save(stream, "PNG")
    mixed = encoder.encode_images([pictures[0], tmp_path / "one.png", stream.getvalue()], batch_size=2)
    np.testing.assert_allclose(mixed, expected, atol=2e-5)
    assert encoder.encode_images([]).shape == (0, 24)


def test_texts_share_the_space(clip):
    encoder, model = clip
    np.testing.assert_allclose(encoder.encode(["abc", "", "x y"]), model.encode(["abc", "", "x y"]), atol=2e-5)
    with pytest.raises(InputError, match="no vectors of single tokens"):
        encoder.encode_tokens(["abc"])


def test_bad_pictures_are_named(clip, pictures, tmp_path):
    encoder, _ = clip
    with pytest.raises(RecordError, match=r"image, row 2: not a readable picture"):
        encoder.encode_images([pictures[0], b"no picture"])
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    for bad in (tmp_path / "cut.png", tmp_path / "absent.png", 7, None):
        with pytest.raises(RecordError, match="not a readable picture"):
            encoder.encode_images([bad])
