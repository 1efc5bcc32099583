"""Reading training data by its column names, and looking at it before an hour is spent on it."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from isometry.errors import InputError, MissingExtraError, NotFoundError
from isometry.records import open_source

HUB = "hub:"
Kind = Literal["pairs", "graded", "judged", "labelled", "plain"]
_ANCHORS = ("anchor", "query", "question", "sentence1", "premise", "text")
_POSITIVES = ("positive", "document", "answer", "sentence2", "hypothesis", "pos", "positive_passages")
_SCORES = ("score", "similarity", "relatedness")
_ROLES = ("anchor", "positive", "negative", "score", "label", "text", "instruction", "context")
_YES = {"1", "1.0", "true", "yes", "entailment", "positive"}
_NO = {"0", "0.0", "-1", "false", "no", "neutral", "contradiction", "negative", "-", "none"}


@dataclass(frozen=True)
class TrainingData:
    """Columns of equal length, in the order a loss takes them.

    Attributes:
        kind: "pairs" = anchor, positive and any number of negatives; "graded" = two texts and a score; "judged" = two
            texts and whether they are a pair (see `as_trained_on`); "labelled" = a text and a label; "plain" = texts
            alone, for pre-training.
        texts: text columns by name.
        targets: scores (graded), 1 or 0 (judged), labels (labelled) or empty.
        instructions: the instruction of each row's anchor, where the data has a column of them.
        contexts: the text around each row's positive, likewise; "" = none.
        sources: number of the data set that a row came from, where there are several (`join_training_data`).
    """

    kind: Kind
    texts: dict[str, list[str]]
    targets: list[Any] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.texts.values())))

    def rows(self, chosen: Sequence[int]) -> TrainingData:
        """The same columns, the given rows only."""
        texts = {name: [column[i] for i in chosen] for name, column in self.texts.items()}
        return TrainingData(
            self.kind,
            texts,
            [self.targets[i] for i in chosen] if self.targets else [],
            [self.instructions[i] for i in chosen] if self.instructions else [],
            [self.contexts[i] for i in chosen] if self.contexts else [],
            [self.sources[i] for i in chosen] if self.sources else [],
        )


def read_training_data(
    source: str | Path | Mapping[str, Sequence[Any]],
    where: str | None = None,
    download: bool = False,
    columns: str = "",
) -> TrainingData:
    """Training rows from a file (whatever the records room reads), a data set of the hub, or columns in memory.

    Columns are known by name: an anchor (anchor, query, question, sentence1, premise; text beside a positive), a positive
    (positive, document, answer, sentence2, hypothesis, pos), negatives (negative, negative_1, …), a score (score,
    similarity, relatedness), a label that says whether the pair is one (1 or 0, entailment or not), an instruction, the
    context around the positive; or text and label; or text alone. Other columns are left alone.

    Args:
        source: a path, 'hub:OWNER/NAME' or 'hub:OWNER/NAME/CONFIG' for the train split of a data set of the hub (whose
            nested texts are taken out: the text of a passage, the last of a list), or columns. All of it is held in
            memory.
        where: how messages call the data; default the file's name.
        download: fetch what only the hub has.
        columns: other names, as 'anchor=title,positive=abstract'; then no other column is looked at.

    Raises:
        InputError: no such columns, empty data, a text that is missing, a score that is no number.
        NotFoundError: a data set of the hub that is not here.
    """
    if isinstance(source, Mapping):
        name, found = where or "the data", {key: list(values) for key, values in source.items()}
    elif str(source).startswith(HUB):
        name = where or str(source)
        found = _hub_columns(str(source).removeprefix(HUB), download)
    else:
        opened = open_source(source, table=True)
        name = where or opened.name
        found = {key: [] for key in opened.schema.names}
        for batch in opened.batches():
            for key, column in zip(batch.schema.names, batch.columns, strict=True):
                found[key] += column.to_pylist()
    if columns:
        found = _renamed(found, columns, name)
    kind, texts, targets = _roles(found, name)
    _check_texts(texts, name)
    instructions = [str(value or "") for value in found["instruction"]] if "instruction" in found else []
    contexts = [str(value or "") for value in found["context"]] if "context" in found and "positive" in texts else []
    if contexts and len(texts) > 2:
        raise InputError(
            f"{name}: positives with a context and negatives without one are told apart by their length; leave the "
            "negatives out and mine them, e.g. --mine 7"
        )
    return TrainingData(kind, texts, targets, instructions, contexts)


def _renamed(found: dict[str, list[Any]], columns: str, name: str) -> dict[str, list[Any]]:
    """The columns that 'anchor=title,positive=abstract' names, under those names."""
    renamed = {}
    for part in columns.split(","):
        role, _, column = (one.strip() for one in part.partition("="))
        if role not in _ROLES and not re.fullmatch(r"negative_\d+", role):
            raise InputError(f"columns '{columns}': '{role}' is none of {', '.join(_ROLES)}; write anchor=title")
        if column not in found:
            near = difflib.get_close_matches(column, found, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(found)}"
            raise InputError(f"{name} has no column '{column}'; {hint}")
        renamed[role] = found[column]
    return renamed


def _roles(found: dict[str, list[Any]], name: str) -> tuple[Kind, dict[str, list[Any]], list[Any]]:
    """What the columns are for: the kind of data, its text columns and its targets."""
    anchor = next((key for key in _ANCHORS if key in found), None)
    positive = next((key for key in _POSITIVES if key in found), None)
    score = next((key for key in _SCORES if key in found), None)
    if anchor is not None and positive is not None:
        texts = {"anchor": found[anchor], "positive": found[positive]}
        if score is not None:
            return "graded", texts, _numbers(found[score], score, name)
        if "label" in found:
            return "judged", texts, _judgements(found["label"], name)
        negatives = sorted(key for key in found if key in ("negative", "neg") or re.fullmatch(r"negative_\d+", key))
        return "pairs", texts | {"negative" if key == "neg" else key: found[key] for key in negatives}, []
    if "text" in found and "label" in found:
        labels = found["label"]
        if None in labels:
            raise InputError(f"{name}, row {labels.index(None) + 1}, column 'label': no label; leave the row out")
        return "labelled", {"text": found["text"]}, labels
    if "text" in found:
        return "plain", {"text": found["text"]}, []
    there = ", ".join(key for key in found if key != "id") or "none"
    raise InputError(
        f"{name} has the columns {there}; training takes anchor and positive (or query and document, sentence1 and "
        "sentence2) with negatives, a score or a label, or text and label, or text alone; other names are given as "
        "--columns anchor=title,positive=abstract"
    )


def _check_texts(texts: dict[str, list[Any]], name: str) -> None:
    if not next(iter(texts.values())):
        raise InputError(f"{name} holds no rows")
    for key, column in texts.items():
        for row, value in enumerate(column, start=1):
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name}, row {row}, column '{key}': {value!r} is no text; give the column texts")
            if value is None or not value.strip():
                raise InputError(f"{name}, row {row}, column '{key}': an empty text; leave the row out")


def _numbers(values: list[Any], column: str, name: str) -> list[float]:
    for row, value in enumerate(values, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{name}, row {row}, column '{column}': '{value}' is no number")
    return [float(value) for value in values]


def _judgements(values: list[Any], name: str) -> list[float]:
    """1.0 where the label says that the pair is one, 0.0 where it says that it is none or says nothing."""
    found = []
    for row, value in enumerate(values, start=1):
        word = str(value).casefold()
        if word not in _YES and word not in _NO:
            raise InputError(
                f"{name}, row {row}, column 'label': '{value}' does not say whether the two texts are a pair: 1 or 0, or "
                "entailment and others; where the column means something else, name those to use: --columns "
                "anchor=…,positive=…"
            )
        found.append(float(word in _YES))
    return found


def as_trained_on(data: TrainingData, loss: str) -> tuple[TrainingData, list[str]]:
    """Judged pairs as the loss takes them: as scores by "cosent", else those that are pairs; and what was left out.

    Raises:
        InputError: no pair is one.
    """
    if data.kind != "judged":
        return data, []
    if loss == "cosent":
        return replace(data, kind="graded"), []
    kept = [row for row, target in enumerate(data.targets) if target]
    if not kept:
        raise InputError(f"none of {len(data)} rows is labelled as a pair")
    note = f"{len(data) - len(kept)} of {len(data)} rows are labelled as no pairs and left out"
    return replace(data.rows(kept), kind="pairs", targets=[]), [note]


def join_training_data(parts: Sequence[TrainingData]) -> TrainingData:
    """Several data sets of pairs as one that remembers where its rows came from.

    Raises:
        InputError: other kinds than pairs, or other columns than the first has.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for number, part in enumerate(parts, start=1):
        if part.kind != "pairs" or part.texts.keys() != first.texts.keys():
            columns = ", ".join(part.texts)
            raise InputError(
                f"data set {number} is {part.kind} with the columns {columns}; several data sets are pairs with the same "
                f"columns, here {', '.join(first.texts)}"
            )
    sizes = [len(part) for part in parts]
    return TrainingData(
        "pairs",
        {name: [text for part in parts for text in part.texts[name]] for name in first.texts},
        [],
        _filled([part.instructions for part in parts], sizes),
        _filled([part.contexts for part in parts], sizes),
        [number for number, size in enumerate(sizes) for _ in range(size)],
    )


def _filled(columns: Sequence[list[str]], sizes: Sequence[int]) -> list[str]:
    """The columns one behind the other, with empty texts for those that are missing; empty where all are."""
    if not any(columns):
        return []
    return [text for column, size in zip(columns, sizes, strict=True) for text in column or [""] * size]


def _hub_columns(name: str, download: bool) -> dict[str, list[Any]]:
    try:
        from datasets import DownloadConfig, load_dataset
    except ImportError as error:
        raise MissingExtraError("data of the hub", "train") from error
    owner, _, rest = name.partition("/")
    data_set, _, config = rest.partition("/")
    try:
        found = load_dataset(
            f"{owner}/{data_set}",
            config or None,
            split="train",
            download_config=DownloadConfig(local_files_only=not download),
        )
    except (OSError, ValueError) as error:
        advice = "" if download else "; --download fetches it"
        raise NotFoundError(f"no data set '{name}' of the hub on this machine{advice}") from error
    return {key: [_plain(value) for value in found[key]] for key in found.column_names}


def _plain(value: Any) -> Any:
    """The text in a passage ({title, text}), in a list of texts (the last: an instruction stands first), or as it is."""
    if isinstance(value, dict):
        texts = [value.get(key) for key in ("title", "text")]
        return " ".join(text for text in texts if text) or _plain(value.get("summary"))
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return _plain(value[0])
        return _plain(value[-1]) if value else None
    return value


def without_leaks(data: TrainingData, test: TrainingData) -> tuple[TrainingData, list[str]]:
    """The rows that are not in the test data, and how many are."""
    seen = set(_keys(test))
    kept = [row for row, key in enumerate(_keys(data)) if key not in seen]
    if len(kept) == len(data):
        return data, []
    return data.rows(kept), [f"{len(data) - len(kept)} of {len(data)} rows are in the test data and left out"]


@dataclass(frozen=True)
class DataReport:
    """What a look at the data found, one sentence each: `problems` stop a run, `notes` do not."""

    rows: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_training_data(
    data: TrainingData, test: TrainingData | None = None, tokenizer: Any = None, limit: int | None = None
) -> DataReport:
    """Look for what spoils a run: leaks into the test data, duplicates, constant labels, texts beyond the limit.

    Args:
        test: data the model will be judged on.
        tokenizer, limit: the model's, to count texts that will be cut.
    """
    problems, notes = [], []
    first = next(iter(data.texts))
    every = [text for column in data.texts.values() for text in column]
    rows = len(data)
    distinct = len(set(every))
    if distinct == 1 and len(every) > 1:
        problems.append(f"all {len(every)} texts are the same text")
    for name in ("anchor", "positive") if data.kind == "pairs" and distinct > 1 and rows > 1 else ():
        if len(set(data.texts[name])) == 1:
            problems.append(f"every {name} is the same text, so that no row has another row's texts as negatives")
    repeated = rows - len(set(zip(*data.texts.values(), strict=True)))
    if repeated:
        notes.append(f"{repeated} of {rows} rows repeat another row")
    again = rows - len(set(data.texts[first]))
    if again > repeated and data.kind == "pairs":
        notes.append(f"{again} rows share their {first} with another row: in a batch they mask each other")
    if data.kind == "pairs":
        same = sum(a == b for a, b in zip(data.texts["anchor"], data.texts["positive"], strict=True))
        if same:
            notes.append(f"{same} of {rows} rows have the same text as anchor and positive")
    if data.kind == "graded":
        low, high = min(data.targets), max(data.targets)
        if low == high:
            problems.append(f"every score is {low:g}, so there is nothing to rank")
        else:
            notes.append(f"scores range from {low:g} to {high:g}")
    if data.kind == "labelled":
        counts = Counter(map(str, data.targets))
        notes.append(
            f"{len(counts)} classes; the smallest has {min(counts.values())} texts, the largest {max(counts.values())}"
        )
        if len(counts) < 2:
            problems.append(f"there is one class only, '{next(iter(counts))}'; training on classes needs two")
        lonely = [name for name, count in counts.items() if count < 2]
        if lonely:
            notes.append(f"{len(lonely)} of {len(counts)} classes have a single text, e.g. '{lonely[0]}'")
    if test is not None:
        seen = set(_keys(data))
        leaked = [row for row, key in enumerate(_keys(test)) if key in seen]
        if leaked:
            example = next(iter(test.texts.values()))[leaked[0]][:60]
            problems.append(
                f"{len(leaked)} of {len(test)} test rows are in the training data, the first with the text '{example}'; "
                "--drop-leaks leaves them out of it"
            )
        known = {_folded(text) for text in every}
        shared = {_folded(text) for column in test.texts.values() for text in column} & known
        if shared and not leaked:
            notes.append(f"{len(shared)} texts of the test data are in the training data too, in other rows")
    if tokenizer is not None and limit is not None:
        lengths = [len(ids) for ids in tokenizer(list(dict.fromkeys(every)), verbose=False)["input_ids"]]
        cut = sum(length > limit for length in lengths)
        if cut:
            notes.append(f"{cut} of {distinct} texts are longer than the model's {limit} tokens and will be cut")
    return DataReport(rows, tuple(problems), tuple(notes))


def _keys(data: TrainingData) -> list[frozenset[str]]:
    """What makes two rows the same to a test: anchor and positive (or the text) in either order, case and blanks apart."""
    columns = [data.texts[name] for name in ("anchor", "positive", "text") if name in data.texts]
    return [frozenset(map(_folded, row)) for row in zip(*columns, strict=True)]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
