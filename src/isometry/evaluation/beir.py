"""BEIR folders: corpus.jsonl, queries.jsonl (each also .gz) and qrels/<split>.tsv.

Corpus lines are {"_id", "title", "text"}, query lines {"_id", "text"}; qrels have a header line and the columns
query-id, corpus-id, score. Read line by line; what is wrong is told with file and line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from isometry.errors import InputError, NotFoundError, RecordError
from isometry.evaluation.atomic import write_atomically
from isometry.evaluation.metrics import Judgements

PARQUET_COLLECTIONS = ("cranfield", "cisi", "cacm", "nfcorpus")


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class BeirData:
    """A checked BEIR folder and one of its splits.

    Attributes:
        name: the folder's.
        queries: id to text, only those with judgements in this split, in the order of the file.
        judgements: query id to document id to relevance.
    """

    folder: Path
    name: str
    split: str
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]

    def documents(self) -> Iterator[Document]:
        """The corpus, line by line."""
        for number, row, file in _rows(self.folder, "corpus"):
            title = row.get("title") or ""
            if not isinstance(title, str):
                raise RecordError(str(file), number, "title", "must be text")
            yield Document(_text(row, "_id", file, number), title, _text(row, "text", file, number, may_be_empty=True))


def read_beir(folder: str | Path, split: str = "test") -> BeirData:
    """Read queries and judgements, and check that the corpus is there (its lines are read by `documents`).

    Raises:
        NotFoundError: not a BEIR folder, or no such split; the message names the splits there are.
        RecordError: a bad line. InputError: judgements of a query that queries.jsonl lacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}")
    _file(folder, "corpus")
    texts: dict[str, str] = {}
    for number, row, file in _rows(folder, "queries"):
        query = _text(row, "_id", file, number)
        if query in texts:
            raise RecordError(str(file), number, "_id", f"query '{query}' was there before")
        texts[query] = _text(row, "text", file, number)
    judgements = _read_qrels(folder, split)
    unknown = [query for query in judgements if query not in texts]
    if unknown:
        raise InputError(
            f"{folder / 'qrels' / split}.tsv judges {len(unknown)} queries that are not in queries.jsonl "
            f"(the first is '{unknown[0]}')"
        )
    queries = {query: text for query, text in texts.items() if query in judgements}
    return BeirData(folder, folder.resolve().name, split, queries, {query: judgements[query] for query in queries})


def write_beir(
    folder: str | Path,
    documents: Iterable[Document],
    queries: Mapping[str, str],
    judgements: Mapping[str, Judgements],
) -> None:
    """Write a folder that `read_beir` takes; `judgements` by split. Each file is written whole or not at all."""
    folder = Path(folder)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = ({"_id": one.id, "title": one.title, "text": one.text} for one in documents)
    write_atomically(folder / "corpus.jsonl", _lines(corpus))
    write_atomically(folder / "queries.jsonl", _lines({"_id": id, "text": text} for id, text in queries.items()))
    for split, judged in judgements.items():
        rows = ["query-id\tcorpus-id\tscore"]
        for query, grades in judged.items():
            for document, grade in grades.items():
                if any(mark in query + document for mark in "\t\r\n"):
                    raise InputError(
                        f"ids with tabs or line ends cannot stand in a qrels file: {query!r}, {document!r}"
                    )
                rows.append(f"{query}\t{document}\t{grade}")
        write_atomically(folder / "qrels" / f"{split}.tsv", ("\n".join(rows) + "\n").encode())


def beir_from_parquet(text_folder: str | Path, dataset: str, folder: str | Path) -> BeirData:
    """One collection of retrieval-docs, -queries and -qrels.parquet (cranfield, cisi, cacm, nfcorpus) as a BEIR folder.

    Returns the 'test' split of what was written.
    """
    text_folder = Path(text_folder)
    tables = {}
    for part in ("docs", "queries", "qrels"):
        path = text_folder / f"retrieval-{part}.parquet"
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        table = pq.read_table(path)
        tables[part] = table.filter(pc.equal(table["dataset"], dataset)).to_pylist()
    if not tables["docs"]:
        raise NotFoundError(f"{text_folder} has no collection '{dataset}': it has {', '.join(PARQUET_COLLECTIONS)}")
    splits = {row["query_id"]: row["split"] for row in tables["queries"]}
    judgements: dict[str, dict[str, dict[str, int]]] = {split: {} for split in dict.fromkeys(splits.values())}
    for row in tables["qrels"]:
        split = judgements[splits[row["query_id"]]]
        split.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    documents = (Document(row["doc_id"], row["title"] or "", row["text"] or "") for row in tables["docs"])
    write_beir(folder, documents, {row["query_id"]: row["text"] for row in tables["queries"]}, judgements)
    return read_beir(folder)


def _file(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.jsonl", f"{stem}.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    raise NotFoundError(f"{folder} is not a BEIR folder: it has no {stem}.jsonl or {stem}.jsonl.gz")


def _rows(folder: Path, stem: str) -> Iterator[tuple[int, dict[str, Any], Path]]:
    file = _file(folder, stem)
    for number, line in _numbered_lines(file):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordError(str(file), number, None, f"not JSON: {error}") from error
        except RecursionError:
            raise RecordError(str(file), number, None, "not JSON that can be read: nested too deeply") from None
        if not isinstance(row, dict):
            raise RecordError(str(file), number, None, f"a line holds one object, not {type(row).__name__}")
        yield number, row, file


def _numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines with their numbers."""
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as raw:
            for number, line in enumerate(raw, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise RecordError(str(file), number, None, f"not UTF-8 text: {error.reason}") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{file} cannot be unpacked: {error}") from error


def _text(row: dict[str, Any], key: str, file: Path, number: int, may_be_empty: bool = False) -> str:
    value = row.get(key)
    # ids that a program wrote as numbers are taken as they look
    if key == "_id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RecordError(str(file), number, key, "is missing" if value is None else f"must be text, not {value!r:.60}")
    if not value.strip() and not may_be_empty:
        raise RecordError(str(file), number, key, "is empty")
    return value


def _read_qrels(folder: Path, split: str) -> dict[str, dict[str, int]]:
    file = folder / "qrels" / f"{split}.tsv"
    if not file.is_file():
        there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
        hint = f"it has {', '.join(there)}" if there else "it has no qrels/*.tsv"
        raise NotFoundError(f"{folder} has no split '{split}': {hint}")
    judgements: dict[str, dict[str, int]] = {}
    for number, line in _numbered_lines(file):
        fields = line.split("\t")
        if len(fields) != 3:
            raise RecordError(
                str(file), number, None, f"{len(fields)} fields by tab where query, document and score belong"
            )
        query, document, grade = (field.strip() for field in fields)
        if number == 1 and not _whole(grade):
            continue
        if not query or not document:
            raise RecordError(str(file), number, None, "an id is empty")
        if not _whole(grade):
            raise RecordError(str(file), number, "score", f"{grade!r} is not a whole number")
        if document in judgements.setdefault(query, {}):
            raise RecordError(str(file), number, None, f"query '{query}' and document '{document}' were judged before")
        judgements[query][document] = int(grade)
    if not judgements:
        raise InputError(f"{file} holds no judgement")
    return judgements


def _whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 10


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for row in rows)
