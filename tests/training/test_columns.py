"""What happens to rows between the file and the trainer: filters, negatives of a corpus, a teacher's scores."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from isometry.encoders import load_encoder
from isometry.errors import InputError, NotFoundError
from isometry.search import Collection
from isometry.training import TrainingData, load_model, preset, train
from isometry.training.columns import Helpers, consistent_data, training_columns
from isometry.training.negatives import Judge, read_corpus
from tests.tiny_text import sentences, tiny_model
from tests.training.small_runs import pairs, run_of

run_of = partial(run_of, steps=3)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model without dropout, so that a student that is its teacher has nothing to learn."""
    folder = tmp_path_factory.mktemp("start")
    model = tiny_model(folder)
    model[0].auto_model.config.hidden_dropout_prob = model[0].auto_model.config.attention_probs_dropout_prob = 0.0
    model.save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def teacher(start, tmp_path_factory):
    """One that tells texts apart, which a random model hardly does."""
    out = tmp_path_factory.mktemp("teacher") / "model"
    train(run_of(start, steps=40), out, data=pairs())
    return str(out)


def test_a_judge_asks_once_and_knows_both_prompts(start):
    asked = []

    class Told:
        def encode_queries(self, texts):
            asked.append(("queries", list(texts)))
            return np.ones((len(texts), 4))

        def encode(self, texts):
            asked.append(("documents", list(texts)))
            return np.full((len(texts), 4), 2.0)

    judge = Judge(Told())
    judge.remember(["c"], np.array([[3.0, 0.0, 0.0, 4.0]]))
    np.testing.assert_allclose(judge.documents(["a", "c", "a"]), [[0.5] * 4, [0.6, 0, 0, 0.8], [0.5] * 4])
    np.testing.assert_allclose(judge.queries(["a", "b"]), [[0.5] * 4] * 2)
    judge.documents(["a"])
    assert asked == [("documents", ["a"]), ("queries", ["a", "b"])]
    texts = sentences(5)
    model = load_model(start)
    np.testing.assert_allclose(Judge(model).documents(texts), model.encode(texts, normalize_embeddings=True), atol=1e-6)


def test_negatives_come_from_a_file_beside_the_positives(start, tmp_path):
    more = [f"{text} w2" for text in sentences(24, 0)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(i), "text": text}) for i, text in enumerate(more)))
    assert read_corpus(path).texts == more
    run = run_of(start, mine=2, mine_margin=0.0, corpus=str(path))
    model = load_model(start)
    columns, notes = training_columns(run, model, pairs(), Helpers(run, model))
    mined = set(columns["negative_1"]) | set(columns["negative_2"])
    assert mined <= set(more) | set(columns["positive"]) and mined & set(more)
    assert "24 queries" in notes[0]
    alone = run_of(start, mine=2, mine_margin=0.0)
    columns, _ = training_columns(alone, model, pairs(), Helpers(alone, model))
    assert set(columns["negative_1"]) <= set(columns["positive"])
    assert train(run, tmp_path / "m", data=pairs()).steps == 3


def test_the_margin_of_a_run_reaches_the_miner(start, monkeypatch):
    from isometry.training import MarginRule, columns

    real, rules = columns.mine_negatives, []

    def seen(*args, rule=None, **options):
        rules.append(rule)
        return real(*args, rule=rule, **options)

    monkeypatch.setattr(columns, "mine_negatives", seen)
    model = load_model(start)
    for changes in ({"mine_margin": 0.1}, {"mine_margin": 0.1, "mine_rule": "absolute"}, {"mine_margin": 0.0}):
        run = run_of(start, mine=2, **changes)
        training_columns(run, model, pairs(), Helpers(run, model))
    assert rules == [MarginRule("relative", 0.1), MarginRule("absolute", 0.1), None]


def test_negatives_come_from_a_collection_by_its_own_encoder(start, tmp_path):
    encoder = load_encoder(start, precision="float32")
    texts = [f"{text} w2" for text in sentences(24, 0)]
    with Collection.create(
        tmp_path / "c", encoder=encoder, schema=pa.schema([("text", pa.string())]), text_columns=["text"]
    ) as collection:
        collection.add(pa.table({"id": [str(i) for i in range(24)], "text": texts}))
    corpus = read_corpus(tmp_path / "c")
    assert corpus.texts == texts
    np.testing.assert_allclose(corpus.vectors, encoder.encode(texts), atol=1e-6)
    run = run_of(start, mine=2, mine_margin=0.0, corpus=str(tmp_path / "c"))
    model = load_model(start)
    helpers = Helpers(run, model)
    columns, _ = training_columns(run, model, pairs(), helpers)
    assert helpers.miner.encoder.describe().fingerprint == encoder.describe().fingerprint
    assert set(columns["negative_1"]) & set(texts)
    with pytest.raises(InputError, match="leave the miner out"):
        wrong = run_of(start, mine=2, corpus=str(tmp_path / "c"), miner=start)
        training_columns(wrong, model, pairs(), Helpers(wrong, model))


def test_a_corpus_without_texts_is_refused(tmp_path):
    (tmp_path / "c.csv").write_text("title,year\na,1\n")
    with pytest.raises(InputError, match="has the columns title, year"):
        read_corpus(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("text,year\n,1\n")
    with pytest.raises(InputError, match="no texts"):
        read_corpus(tmp_path / "d.csv")
    with pytest.raises(NotFoundError):
        read_corpus(tmp_path / "e.csv")
    with Collection.create(tmp_path / "v", dimension=4) as collection:
        collection.add(pa.table({"id": ["a"]}), np.ones((1, 4), np.float32))
    with pytest.raises(InputError, match="an encoder gave each of its records one vector"):
        read_corpus(tmp_path / "v")


def test_rows_whose_positive_is_far_are_left_out(start):
    good = pairs(20)
    wrong = TrainingData("pairs", {"anchor": sentences(4, 90), "positive": sentences(4, 91)}, [], ["t"] * 4)
    both = TrainingData(
        "pairs",
        {name: good.texts[name] + wrong.texts[name] for name in good.texts},
        [],
        [f"i{i}" for i in range(24)],
    )
    run = run_of(start, consistent=1)
    model = load_model(start)
    kept, notes = consistent_data(run, both, Helpers(run, model))
    vectors = {name: model.encode(column, normalize_embeddings=True) for name, column in both.texts.items()}
    scores = vectors["anchor"] @ vectors["positive"].T
    expected = [row for row in range(24) if scores[row].argmax() == row]
    assert kept.texts["anchor"] == [both.texts["anchor"][row] for row in expected]
    assert kept.instructions == [f"i{row}" for row in expected]
    assert notes == [
        f"{24 - len(expected)} of 24 rows left out: their positive is not among the 1 texts nearest to the anchor"
    ]
    assert 10 < len(expected) < 24
    everything, none = consistent_data(run_of(start), both, Helpers(run_of(start), model))
    assert everything is both and none == []
    with pytest.raises(InputError, match="only pairs"):
        consistent_data(run, TrainingData("plain", {"text": ["a", "b"]}), Helpers(run, model))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("distil", {"temperature": 0.05}), ("distil-margins", {}), ("distil-layers", {})],
)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name, changes, start, teacher, tmp_path):
    given = {"teacher": teacher, "steps": 1, "learning_rate": 1e-9, **changes}
    if name != "distil-layers":
        given["miner"] = ""
    same = train(run_of(teacher, name, **given), tmp_path / "same", data=pairs(negatives=2))
    small = run_of(f"{start}#layers=2", name, **{**given, "steps": 30, "learning_rate": 3e-4})
    learned = train(small, tmp_path / "small", data=pairs(negatives=2))
    assert abs(same.losses[0][1]) < learned.losses[0][1] / 20
    assert learned.losses[-1][1] < 0.9 * learned.losses[0][1]
    assert json.loads((tmp_path / "small" / "config.json").read_text())["num_hidden_layers"] == 2


def test_layers_are_copied_on_plain_texts_and_scores_need_negatives(start, tmp_path):
    plain = TrainingData("plain", {"text": sentences(16)})
    assert train(run_of(start, "distil-layers", teacher=start), tmp_path / "m", data=plain).steps == 3
    mined = run_of(start, "distil", teacher=start, miner="", mine=2, mine_margin=0.0)
    assert train(mined, tmp_path / "n", data=pairs()).steps == 3
    with pytest.raises(InputError, match="needs negatives"):
        train(run_of(start, "distil", teacher=start, mine=0), tmp_path / "x", data=pairs())
    with pytest.raises(InputError, match="a teacher goes with"):
        preset("contrastive", teacher=start)
    with pytest.raises(InputError, match="a teacher goes with"):
        preset("distil", teacher="")


def test_a_model_is_cut_before_it_is_trained(start):
    model = load_model(f"{start}#layers=2,dimensions=8")
    assert model.get_embedding_dimension() == 8 and len(model[0].auto_model.encoder.layer) == 2
    with pytest.raises(InputError, match="one vector a text"):
        load_model("default#tokens")
    with pytest.raises(InputError, match="9 layers"):
        load_model(f"{start}#layers=9")
