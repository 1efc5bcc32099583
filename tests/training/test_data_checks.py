from __future__ import annotations

from isometry.training import TrainingData, check_training_data
from isometry.training.data import without_leaks
from tests.tiny_text import tokenizer


def pairs(anchors, positives):
    return TrainingData("pairs", {"anchor": anchors, "positive": positives})


def test_leaks_stop_a_run():
    data = pairs(["a", "b", "c"], ["d", "e", "f"])
    report = check_training_data(data, pairs(["b", "x"], ["e", "y"]))
    assert report.problems == (
        "1 of 2 test rows are in the training data, the first with the text 'b'; --drop-leaks leaves them out of it",
    )
    kept, notes = without_leaks(data, pairs(["b", "x"], ["e", "y"]))
    assert kept.texts == {"anchor": ["a", "c"], "positive": ["d", "f"]}
    assert notes == ["1 of 3 rows are in the test data and left out"]
    assert without_leaks(data, pairs(["x"], ["y"])) == (data, [])
    softer = check_training_data(data, pairs(["b"], ["other"]))
    assert softer.notes == ("1 texts of the test data are in the training data too, in other rows",)
    assert not softer.problems


def test_a_leak_is_found_whatever_the_case_the_blanks_and_the_order():
    data = pairs(["A cat  sat", "c"], ["on it", "d"])
    assert check_training_data(data, pairs(["On it"], ["a cat sat"])).problems
    graded = TrainingData("graded", {"anchor": ["a", "c"], "positive": ["b", "d"]}, [1.0, 2.0])
    again = TrainingData("graded", {"anchor": ["B"], "positive": ["a"]}, [5.0])
    assert "1 of 1 test rows" in check_training_data(graded, again).problems[0]
    assert not check_training_data(graded, pairs(["a"], ["d"])).problems


def test_duplicates_and_equal_texts_are_noted():
    report = check_training_data(pairs(["a", "a", "a", "z"], ["b", "b", "c", "z"]))
    assert report.notes == (
        "1 of 4 rows repeat another row",
        "2 rows share their anchor with another row: in a batch they mask each other",
        "1 of 4 rows have the same text as anchor and positive",
    )


def test_identical_texts_one_class_and_constant_scores_stop_a_run():
    assert check_training_data(pairs(["a", "a"], ["a", "a"])).problems == ("all 4 texts are the same text",)
    assert "every anchor is the same text" in check_training_data(pairs(["a", "a"], ["b", "c"])).problems[0]
    assert "every positive is the same text" in check_training_data(pairs(["a", "b"], ["c", "c"])).problems[0]
    assert not check_training_data(pairs(["a", "b"], ["a", "b"])).problems
    one = TrainingData("labelled", {"text": ["a", "b"]}, ["x", "x"])
    assert "one class only, 'x'" in check_training_data(one).problems[0]
    flat = TrainingData("graded", {"anchor": ["a", "b"], "positive": ["c", "d"]}, [1.0, 1.0])
    assert "every score is 1" in check_training_data(flat).problems[0]
    good = TrainingData("graded", {"anchor": ["a", "b"], "positive": ["c", "d"]}, [1.0, 5.0])
    assert check_training_data(good).notes == ("scores range from 1 to 5",)


def test_lonely_classes_and_long_texts_are_counted():
    labelled = TrainingData("labelled", {"text": ["w1", "w2", "w3 w4 w5 w6 w7"]}, ["x", "x", "y"])
    report = check_training_data(labelled, tokenizer=tokenizer(), limit=6)
    assert report.notes == (
        "2 classes; the smallest has 1 texts, the largest 2",
        "1 of 2 classes have a single text, e.g. 'y'",
        "1 of 3 texts are longer than the model's 6 tokens and will be cut",
    )
