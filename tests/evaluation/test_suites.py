"""Suites, their runs and result files: caches, resumption, mteb's loader, baselines, and wrong input."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from isometry.cli._eval_suite import grid_of
from isometry.errors import InputError, NotFoundError
from isometry.evaluation.baselines import HashedWords, Lsa, RandomVectors
from isometry.evaluation.mteb_results import read_result, result_path, write_result
from isometry.evaluation.suite_report import leaderboard, write_suite_report
from isometry.evaluation.suite_run import cut_suite, load_tasks, run_model
from isometry.evaluation.suites import SUITES, SuiteTask, suite
from isometry.evaluation.tasks import KINDS, fingerprint
from isometry.evaluation.vector_cache import CachedEncoder

from .tasks.letters import Letters, all_tasks


def loaded():
    return [(task, fingerprint(task)) for task in all_tasks().values()]


def test_vectors_are_computed_once_and_kept(tmp_path):
    texts = [f"text {i % 30}" for i in range(50)]
    first = Letters()
    cached = CachedEncoder(first, tmp_path)
    vectors = cached.encode(texts)
    assert vectors.tolist() == Letters().encode(texts).tolist()
    assert (first.seen, cached.encoded, cached.texts) == (30, 30, 30)
    cached.encode(texts)
    assert first.seen == 30
    again = Letters()
    later = CachedEncoder(again, tmp_path)
    assert later.encode([*texts, "new"]).tolist() == Letters().encode([*texts, "new"]).tolist()
    assert again.seen == 1
    assert later.seconds > 0
    other = Letters(noise=0.5)
    CachedEncoder(other, tmp_path).encode(texts)
    assert other.seen == 30


def test_queries_and_documents_are_kept_apart(tmp_path):
    class Asked(Letters):
        def encode_queries(self, texts, batch_size=64, show_progress_bar=None):
            return -self.encode(texts)

    cached = CachedEncoder(Asked(), tmp_path)
    assert (cached.encode_queries(["a"]) == -cached.encode(["a"])).all()
    assert (CachedEncoder(Asked(), tmp_path).encode_queries(["a"]) == -cached.encode(["a"])).all()


def test_a_stopped_run_goes_on_where_it_stood(tmp_path):
    class Stops(Letters):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            if self.seen:
                raise KeyboardInterrupt
            return super().encode(inputs)

    texts = [f"text {i}" for i in range(2500)]
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(Stops(), tmp_path).encode(texts)
    rest = Letters()
    assert CachedEncoder(rest, tmp_path).encode(texts).tolist() == Letters().encode(texts).tolist()
    assert rest.seen == 2500 - 1024


@pytest.mark.parametrize("harm", ["cut", "flip", "other"])
def test_a_damaged_file_is_computed_again(tmp_path, harm, caplog):
    CachedEncoder(Letters(), tmp_path).encode(["a", "b"])
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    if harm == "cut":
        content = content[:-40]
    elif harm == "flip":
        content[content.index(b"NUMPY", 300) + 130] ^= 1
    else:
        content = bytearray(b"PK nothing")
    file.write_bytes(bytes(content))
    again = Letters()
    assert CachedEncoder(again, tmp_path).encode(["a", "b"]).tolist() == Letters().encode(["a", "b"]).tolist()
    assert again.seen == 2
    assert "is damaged" in caplog.text


def test_an_encoder_that_gives_nonsense_is_told():
    class Nonsense(Letters):
        def encode(self, inputs, batch_size=64, show_progress_bar=None):
            found = super().encode(inputs)
            found[1] = np.inf
            return found

    with pytest.raises(InputError, match="gave NaN or infinity for the text 'b'"):
        CachedEncoder(Nonsense(), None).encode(["a", "b"])
    with pytest.raises(InputError, match="array of shape"):
        CachedEncoder(type("Wide", (Letters,), {"describe": RandomVectors(5).describe})(), None).encode(["a"])


def test_a_run_keeps_its_results_and_finds_them_again(tmp_path):
    first = run_model("letters", Letters(), loaded(), tmp_path / "cache", tmp_path / "out")
    assert set(first.results) == {task.name for task, _ in loaded()} and first.reused == ()
    assert first.texts_per_second > 0
    again = Letters()
    second = run_model("letters", again, loaded(), tmp_path / "cache", tmp_path / "out")
    assert again.seen == 0 and len(second.reused) == 7
    for name, one in first.results.items():
        assert second.results[name].value == one.value
        assert second.results[name].per_item.tolist() == one.per_item.tolist()
        assert second.results[name].metric == one.metric and second.results[name].kind == one.kind


def test_a_result_of_other_data_or_of_somebody_else_is_not_taken(tmp_path):
    task = all_tasks()["STS"]
    about, found = Letters().describe(), task.evaluate(Letters())
    path = write_result(tmp_path, about, found, "abc", 1.5)
    assert path == result_path(tmp_path, about, "s")
    assert read_result(tmp_path, about, "s", "abc").value == found.value
    assert read_result(tmp_path, about, "s", "abd") is None
    assert read_result(tmp_path, Letters(0.9).describe(), "s", "abc") is None
    path.write_text(path.read_text().replace('"definition": 1', '"definition": 0'))
    assert read_result(tmp_path, about, "s", "abc") is None
    path.write_text("[]")
    assert read_result(tmp_path, about, "s", "abc") is None


def test_mteb_reads_our_results(tmp_path):
    mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'isometry[mteb]'")
    run_model("letters", Letters(), loaded(), None, tmp_path)
    about = Letters().describe()
    read = mteb.TaskResult.from_disk(result_path(tmp_path, about, "r"))
    assert read.task_name == "r" and read.languages == ["eng"]
    assert read.get_score() == pytest.approx(all_tasks()["Retrieval"].evaluate(Letters()).value)
    from mteb.cache import ResultCache

    everything = ResultCache(tmp_path).load_results(include_remote=False)
    (model,) = everything.model_results
    assert (model.model_name, model.model_revision) == ("isometry/letters", about.fingerprint)
    assert {one.task_name: one.get_score() for one in model.task_results} == pytest.approx(
        {task.name: task.evaluate(Letters()).value for task in all_tasks().values()}
    )


def test_baselines_repeat_and_know_what_they_are():
    texts = ["amber basalt", "basalt cedar", "dune", ""]
    for make in (partial(RandomVectors, 16), partial(HashedWords, 16), partial(HashedWords, 16, "characters")):
        one, other = make(), make()
        assert one.describe() == other.describe() and one.describe().dimension == 16
        assert one.encode(texts).tolist() == other.encode(texts[::-1])[::-1].tolist()
        assert one.encode(texts).dtype == np.float32
    assert RandomVectors(16, seed=1).describe().digest != RandomVectors(16).describe().digest
    words = HashedWords(4096).encode(texts)
    assert words[0] @ words[1] == pytest.approx(0.5)
    assert words[0] @ words[2] == 0 and not words[3].any()
    fitted = Lsa(2).for_texts(texts)
    assert fitted.encode(texts).shape == (4, 2) and fitted.describe().dimension == 2
    assert Lsa(2).for_texts(texts[:3]).describe().digest != fitted.describe().digest
    with pytest.raises(InputError, match="at least one dimension"):
        RandomVectors(0)
    with pytest.raises(InputError, match="too few different words"):
        Lsa(4).for_texts(["a"])


def test_lsa_is_fitted_task_by_task(tmp_path):
    run = run_model("lsa", Lsa(8), loaded(), tmp_path)
    # two pairs of the seven tasks have the same texts, and so the same vectors
    assert len(list(tmp_path.iterdir())) == 5
    assert run.results["s"].value > 0.5 and run.about.name == "lsa#dimensions=8"


def runs():
    tasks = loaded()
    models = {"letters": Letters(0.2), "noisy": Letters(3.0), "random": RandomVectors(26)}
    return [run_model(name, encoder, tasks) for name, encoder in models.items()]


def test_a_leaderboard_orders_tests_and_reports(tmp_path):
    board = leaderboard("made of letters", runs(), select=True)
    document = board.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [one["model"] for one in document["models"]] == ["letters", "noisy", "random"]
    assert [one["rank"] for one in document["models"]] == [1, 2, 3]
    assert document["models"][0]["borda"] == 14.0
    assert [one["type"] for one in document["tasks"]] == list(KINDS)
    (noisy, _) = document["comparisons"]
    assert noisy["second"] == "noisy" and noisy["mean_difference"] > 0 and noisy["tasks"]["s"]["p_holm"] < 0.05
    assert document["selection"]["underdetermined"] and len(document["selection"]["kept"]) == 7
    for name in ("report.html", "report.md"):
        text = write_suite_report(tmp_path / name, board).read_text()
        assert text == write_suite_report(tmp_path / name, board).read_text()
        assert text.count("data:image/png;base64,") == 3
        assert "Critical differences" in text and "letters against noisy" in text
    with pytest.raises(InputError, match=r"\.html or \.md"):
        write_suite_report(tmp_path / "report.pdf", board)


def test_the_retrieval_tasks_of_a_suite_are_cut(tmp_path):
    models = {"letters": Letters(0.2), "noisy": Letters(3.0), "lsa": Lsa(8), "random": RandomVectors(26)}
    tasks = loaded()
    cuts = cut_suite(tasks, models, tmp_path, pool=2)
    assert cuts["top"] == [5.0, 10.0, 20.0, 50.0, 100.0] and cuts["agreement"][-1] == 1.0
    assert cut_suite([one for one in tasks if one[0].kind != "Retrieval"], models) is None
    board = leaderboard("cut", runs(), select=True, cuts=cuts)
    assert board.to_dict()["selection"]["hard_negatives"] == cuts
    assert "## Smaller corpora" in write_suite_report(tmp_path / "report.md", board).read_text()


def test_one_task_is_tested_over_its_items():
    one = [run_model(name, encoder, loaded()[:1]) for name, encoder in (("a", Letters()), ("b", RandomVectors(26)))]
    board = leaderboard("one task", one)
    (line,) = board.against["b"]
    assert board.overall == {"b": (line.comparison.effect, line.p_holm)} and line.p_holm < 0.05


def test_a_single_model_has_a_leaderboard_too():
    board = leaderboard("one", runs()[:1])
    assert board.to_dict()["models"][0]["rank_interval"] == {"items": [1, 1], "tasks": [1, 1]}
    assert board.difference is None and board.to_dict()["comparisons"] == []


def test_all_cuts_of_one_model_are_a_grid(tmp_path):
    tasks = loaded()
    noise = {(2, 8): 3.0, (2, 26): 1.0, (4, 8): 0.5, (4, 26): 0.2}
    found = [run_model(f"m#layers={n},dimensions={d}", Letters(part), tasks) for (n, d), part in noise.items()]
    board = leaderboard("sizes", found)
    grid = board.to_dict()["grid"]
    means = {run.name: board.table.values[row].mean() for row, run in enumerate(board.runs)}
    assert (grid["layers"], grid["dimensions"]) == ([2, 4], [8, 26])
    assert grid["mean"] == [
        [means["m#layers=2,dimensions=8"], means["m#layers=2,dimensions=26"]],
        [means["m#layers=4,dimensions=8"], means["m#layers=4,dimensions=26"]],
    ]
    text = write_suite_report(tmp_path / "report.md", board).read_text()
    assert "## Sizes" in text and text.count("data:image/png;base64,") == 3
    assert "grid" not in leaderboard("a cell is missing", found[:3]).to_dict()
    assert (
        "grid"
        not in leaderboard(
            "two models", [*found[:3], run_model("o#layers=4,dimensions=26", Letters(), tasks)]
        ).to_dict()
    )
    assert "grid" not in leaderboard("no cuts", runs()).to_dict()


def test_the_cells_of_a_grid_are_named():
    names = grid_of(["default"], "2,6 x 48,384")
    assert names == [f"default#layers={n},dimensions={d}" for n in (6, 2) for d in (384, 48)]
    for models, grid in ((["default"], "2,6"), (["a", "b"], "2x4"), (["lsa"], "2x4"), (["a#layers=2"], "2x4")):
        with pytest.raises(InputError, match="--grid"):
            grid_of(models, grid)


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(NotFoundError, match="no suite 'local': there are local-en, local-multi, local-small"):
        suite("local")
    with pytest.raises(NotFoundError, match="no task 'Bankin77'; did you mean 'Banking77'"):
        suite("local-en", ["Bankin77"])
    assert [task.name for task in suite("local-en", ["MR", "STSB"])] == ["STSB", "MR"]


def test_a_missing_data_set_is_told_before_anything_runs(tmp_path):
    def find(name):
        raise NotFoundError(f"data set '{name}' is not here")

    with pytest.raises(NotFoundError, match=r"'text/stsb\.parquet' is not here"):
        load_tasks(suite("local-small"), find)


def test_a_file_that_is_something_else(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1nothing")
    with pytest.raises(InputError, match=r"cannot be read as 'text/stsb\.parquet'"):
        load_tasks(suite("local-en", ["STSB"]), lambda name: tmp_path / "x.parquet")


def test_every_suite_is_made_of_tasks_with_their_own_names():
    for tasks in SUITES.values():
        assert len({task.name for task in tasks}) == len(tasks)
        assert all(isinstance(task, SuiteTask) and task.kind in KINDS for task in tasks)
    assert {task.kind for task in SUITES["local-small"]} == set(KINDS)


def test_small_tasks_load_and_are_drawn_alike_every_time(shared_data):
    find = lambda name: shared_data / name  # noqa: E731
    for entry in SUITES["local-small"]:
        task = entry.load(find)
        assert (task.name, task.kind) == (entry.name, entry.kind)
        if entry.name in ("MRPC", "CACM", "Banking77", "ArxivClusters", "Tatoeba", "WikiQA"):
            assert fingerprint(task) == fingerprint(entry.load(find))
    cranfield = suite("local-small", ["Cranfield"])[0].load(find)
    (judged,) = cranfield.data.values()
    assert len(judged.queries) == 40 and len(judged.corpus) == 400
    whole = suite("local-en", ["Cranfield"])[0].load(find)
    (judged,) = whole.data.values()
    assert (len(judged.queries), len(judged.corpus)) == (225, 1398)
    arxiv = suite("local-small", ["ArxivClusters"])[0].load(find)
    assert {len(label) for label in arxiv.data["en"].labels} == {2}
