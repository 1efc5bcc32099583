"""Model folders: what is loaded, what is refused, and what the digest sees."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from isometry.encoders import load_encoder
from isometry.encoders.bert_engine import reads_plainly
from isometry.encoders.digest import folder_digest
from isometry.encoders.trust import refuse_foreign_code
from isometry.errors import InputError, NotFoundError
from isometry.testing import check_encoder
from tests.tiny_text import sentences


def test_a_plain_folder_equals_sentence_transformers(folder):
    texts = [*sentences(20, 1), ""]
    ours = load_encoder(folder, precision="float32")
    assert reads_plainly(folder)
    np.testing.assert_allclose(
        ours.encode(texts), SentenceTransformer(str(folder), device="cpu").encode(texts), atol=2e-6
    )
    check_encoder(ours)


def test_another_kind_goes_through_sentence_transformers(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    model.append(Dense(32, 16))
    model.prompts = {"query": "w1 w2 ", "document": "w3 "}
    model.save(str(tmp_path / "dense"))
    ours = load_encoder(tmp_path / "dense")
    assert not reads_plainly(tmp_path / "dense") and ours.describe().dimension == 16
    texts = sentences(9, 2)
    np.testing.assert_allclose(ours.encode(texts), model.encode_document(texts), atol=2e-6)
    np.testing.assert_allclose(ours.encode_queries(texts), model.encode_query(texts), atol=2e-6)
    assert (ours.describe().query_prompt, ours.describe().document_prompt) == ("w1 w2 ", "w3 ")
    assert not ours.describe().normalized
    half = load_encoder(tmp_path / "dense", precision="bfloat16").encode(texts)
    cosines = (
        (half * ours.encode(texts)).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(ours.encode(texts), axis=1)
    )
    assert cosines.min() > 0.99
    check_encoder(ours)


def test_prompts_of_a_plain_folder(folder, edit):
    edit(folder / "config_sentence_transformers.json", prompts={"query": "w5 w6 ", "document": ""})
    model = SentenceTransformer(str(folder), device="cpu")
    ours = load_encoder(folder, precision="float32")
    np.testing.assert_allclose(ours.encode_queries(["w7"]), model.encode_query(["w7"]), atol=2e-6)
    np.testing.assert_allclose(ours.encode(["w7"]), model.encode_document(["w7"]), atol=2e-6)


def test_fewer_layers_through_sentence_transformers(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    model.append(Dense(32, 16))
    model.save(str(tmp_path / "dense"))
    small = load_encoder(tmp_path / "dense", layers=2, dimensions=8)
    assert small.encode(["w1 w2"]).shape == (1, 8) and small.describe().dimension == 8
    values, offsets = small.encode_tokens(["w1 w2", "w3"])
    assert offsets.tolist() == [0, 4, 7] and np.linalg.norm(values, axis=1) == pytest.approx(1.0)


def test_the_digest_sees_what_changes_vectors_only(folder, edit):
    first = folder_digest(folder)
    moved = folder.rename(folder.with_name("renamed"))
    edit(moved / "config.json", transformers_version="9", _name_or_path="elsewhere")
    (moved / "README.md").write_text("other words")
    assert folder_digest(moved) == first
    described = load_encoder(moved).describe()
    assert described.fingerprint == load_encoder(moved, precision="float32").describe().fingerprint
    edit(moved / "config.json", layer_norm_eps=1e-5)
    assert folder_digest(moved) != first


def test_a_changed_weight_changes_the_digest(folder):
    first = folder_digest(folder)
    weights = folder / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(held)
    assert folder_digest(folder) != first


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def spoil_class(folder, edit):
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["type"] = "os.path.Pooling"
    (folder / "modules.json").write_text(json.dumps(listed))


def spoil_path(folder, edit):
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["path"] = "../../elsewhere"
    (folder / "modules.json").write_text(json.dumps(listed))


def spoil_pickle(folder, edit):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Boom()))


HOSTILE = {
    r"os\.path\.Pooling": spoil_class,
    "leaves the model": spoil_path,
    "pickled": spoil_pickle,
    "auto_map": lambda folder, edit: edit(folder / "config.json", auto_map={"AutoModel": "own.Model"}),
    "tokenizer_config.*auto_map": lambda folder, edit: edit(folder / "tokenizer_config.json", auto_map={"T": "own.T"}),
    "trust_remote_code": lambda folder, edit: edit(
        folder / "sentence_bert_config.json", model_args={"trust_remote_code": True}
    ),
    "kernel": lambda folder, edit: edit(folder / "config.json", _attn_implementation="owner/kernel"),
    "adapter": lambda folder, edit: edit(folder / "adapter_config.json", base_model_name_or_path="x"),
    "not readable JSON": lambda folder, edit: (folder / "config.json").write_text("{"),
    "not a list of modules": lambda folder, edit: (folder / "modules.json").write_text('{"a": 1}'),
    "not a readable BERT model": lambda folder, edit: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
}


@pytest.mark.parametrize("sentence", HOSTILE)
def test_spoilt_folders_are_refused_in_one_sentence(folder, edit, sentence):
    HOSTILE[sentence](folder, edit)
    with pytest.raises(InputError, match=sentence) as caught:
        load_encoder(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_router_classes_are_checked(folder):
    (folder / "router_config.json").write_text(json.dumps({"types": {"a": "own.Module"}}))
    with pytest.raises(InputError, match=r"own\.Module"):
        refuse_foreign_code(folder)


def test_missing_models_are_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"no modules\.json"):
        load_encoder(tmp_path)
    with pytest.raises(NotFoundError, match="download=True"):
        load_encoder("nobody/no-such-model")
    with pytest.raises(NotFoundError, match="no encoder 'a b/c/d'"):
        load_encoder("a b/c/d")
