"""isometry eval DIR|ENCODER --data FOLDER, and isometry eval MODEL... --suite NAME"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isometry.cli._eval_suite import evaluate_suite, grid_of, print_table
from isometry.cli._shared import print_json, progress_bar, tell
from isometry.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from isometry.evaluation import BeirData

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_BATCH = 512


@app.command()
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="a collection's folder, or an encoder: 'default', a folder, a hub name; with --suite several encoders, "
            "also random, words, characters, lsa, static",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; with --suite the folder of its data sets",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="local-en, local-multi, local-small, or a benchmark of mteb as 'MTEB(eng, v2)'"),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="only this task of the suite; may be repeated")
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option("--grid", help="judge one model cut to every size of a grid, LAYERSxDIMENSIONS: 2,4,6x48,96,384"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for results and reports; finished ones are reused")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="folder for vectors, else the user's cache")] = None,
    select: Annotated[bool, typer.Option("--select", help="which tasks of the suite would do (paper 20)")] = False,
    download: Annotated[bool, typer.Option("--download", help="fetch an encoder that only the hub has")] = False,
    split: Annotated[str, typer.Option("--split", help="which qrels file")] = "test",
    mode: Annotated[
        str, typer.Option("--mode", help="vector, text or hybrid (the last two need a collection)")
    ] = "vector",
    against: Annotated[
        str | None, typer.Option("--against", help="another collection or encoder, for a paired test")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="hits per query")] = 100,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="go on where documents are not there")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="write a report to this .html or .md file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Measure retrieval quality on judged queries, or models on a suite of tasks, with intervals and paired tests."""
    from isometry.evaluation import compare_runs, read_beir, write_report
    from isometry.evaluation.report import comparison_table, metric_table

    if report is not None and (report.suffix.lower() not in (".html", ".md") or not report.resolve().parent.is_dir()):
        raise InputError(f"--report {report}: give an .html or .md file in a folder that exists")
    if suite is not None:
        if (split, mode, against, k, allow_missing) != ("test", "vector", None, 100, False):
            raise InputError("--split, --mode, --against, -k and --allow-missing judge a BEIR folder: not with --suite")
        if grid is not None:
            targets = grid_of(targets, grid)
        evaluate_suite(targets, suite, task or [], data, out, cache, select, report, download, as_json)
        return
    if task or out is not None or cache is not None or select or grid is not None:
        raise InputError("--task, --grid, --out, --cache and --select need --suite")
    if data is None:
        raise InputError("give --data FOLDER (BEIR) or --suite NAME: there is nothing to judge by")
    if len(targets) > 1:
        raise InputError("a BEIR folder takes one system, and a second one by --against; several need --suite")
    (target,) = targets
    if mode not in ("vector", "text", "hybrid"):
        raise InputError(f"mode is '{mode}'; choose vector, text or hybrid")
    if k < 1:
        raise InputError(f"k is {k} and must be above 0")
    if against == target:
        raise InputError("--against names the same system: there is nothing to compare")
    beir = read_beir(data, split)
    results, documents = [], []
    for name in (target, *([against] if against is not None else [])):
        result, about = _run(name, beir, mode, k, allow_missing, download, show=not as_json)
        results.append(result)
        documents.append(about)
    comparisons = compare_runs(*results) if len(results) == 2 else []
    document: dict[str, Any] = {"target": target, "data": beir.name, "split": split, "mode": mode, "k": k}
    document |= results[0].to_dict() | documents[0]
    if against is not None:
        document["against"] = {"target": against, **results[1].to_dict(), **documents[1]}
        document["comparison"] = {one.metric: one.to_dict() for one in comparisons}
    if report is not None:
        facts = {"mode": mode, "hits per query": k, "unjudged among the first 10": f"{results[0].scores.unjudged:.1%}"}
        document["report"] = str(write_report(report, results, facts))
    if as_json:
        print_json(document)
        return
    judged = results[0].scores
    print(f"{beir.name}, {split}: {len(judged.queries)} queries, {judged.unjudged:.0%} of the top 10 unjudged")
    print_table(*metric_table(results))
    if comparisons:
        print(f"\n{target} - {against}")
        print_table(*comparison_table(comparisons))
    if report is not None:
        tell(f"the report is {report}")


def _run(
    name: str, beir: BeirData, mode: str, k: int, allow_missing: bool, download: bool, show: bool
) -> tuple[Any, dict[str, Any]]:
    """The result of a collection or an encoder, and what is to be said about its documents."""
    from isometry.evaluation import DEFAULT_METRICS, RetrievalResult, score_rankings

    queries = {
        query: text for query, text in beir.queries.items() if any(g > 0 for g in beir.judgements[query].values())
    }
    if not queries:
        raise InputError(f"{beir.folder}, split '{beir.split}': no query has a relevant document")
    collection = _collection(name)
    if collection is not None:
        with collection:
            about = _check_documents(collection, beir, allow_missing)
            rankings = _search(collection, queries, mode, k, show)
    else:
        if mode != "vector":
            raise InputError(f"mode '{mode}' needs a collection, and {name} is an encoder: index the corpus first")
        rankings, about = _encode_and_rank(name, beir, queries, k, allow_missing, download, show)
    # what was cut at k says nothing of a deeper cutoff
    metrics = [metric for metric in DEFAULT_METRICS if "@" not in metric or int(metric.partition("@")[2]) <= k]
    scores = score_rankings(beir.judgements, rankings, metrics)
    return RetrievalResult.of(name, f"{beir.name} ({beir.split})", scores), about


def _collection(name: str) -> Any:
    from isometry.search import Collection

    try:
        return Collection.open(name)
    except NotFoundError:
        return None


def _search(collection: Any, queries: dict[str, str], mode: str, k: int, show: bool) -> dict[str, list[str]]:
    texts, rankings = list(queries.items()), {}
    with progress_bar(f"searching {collection.name}", show=show) as progress:
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            for (query, _), found in zip(
                part, collection.search_many([text for _, text in part], k=k, mode=mode), strict=True
            ):
                rankings[query] = [hit.id for hit in found.hits]
            progress(min(start + 64, len(texts)), len(texts))
    return rankings


def _check_documents(collection: Any, beir: BeirData, allow_missing: bool) -> dict[str, Any]:
    """Count corpus documents that the collection lacks, and records that the corpus lacks (they compete for ranks)."""
    held = {one for batch in collection.iter_records() for one in batch.column("id").to_pylist()}
    corpus = {document.id for document in beir.documents()}
    _tell_missing(f"collection {collection.path}", held, corpus, beir, allow_missing)
    if held - corpus:
        tell(f"{len(held - corpus):,} records of {collection.path} are not in the corpus and compete for ranks")
    return {
        "documents": len(held),
        "missing_documents": len(corpus - held),
        "other_documents": len(held - corpus),
    }


def _tell_missing(where: str, held: set[str], corpus: set[str], beir: BeirData, allow_missing: bool) -> None:
    judged = {document for grades in beir.judgements.values() for document, grade in grades.items() if grade > 0}
    missing = sorted((judged | corpus) - held)
    if not missing:
        return
    sentence = (
        f"{len(missing):,} documents of {beir.folder} are not in the {where} (the first is '{missing[0]}'; "
        f"{len(judged - held):,} of them are relevant to a query)"
    )
    if not allow_missing:
        raise InputError(f"{sentence}: index the whole corpus, or go on with --allow-missing")
    tell(sentence)


def _encode_and_rank(
    name: str, beir: BeirData, queries: dict[str, str], k: int, allow_missing: bool, download: bool, show: bool
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Encode corpus and queries, and rank by cosine; vectors are held a batch at a time."""
    from isometry.encoders import load_encoder
    from isometry.evaluation import exact_rankings

    encoder = load_encoder(name, download=download)
    if encoder.describe().multi_vector:
        raise InputError(
            f"{name} gives several vectors a text: index the corpus with it, and name that collection here"
        )
    # one pass over the lines first: a bad one stops before the hours of encoding
    corpus = [document.id for document in beir.documents()]
    if len(set(corpus)) != len(corpus):
        raise InputError(f"{beir.folder}: a document id stands twice in the corpus")
    _tell_missing("corpus", set(corpus), set(corpus), beir, allow_missing)

    def batches() -> Iterator[tuple[Sequence[str], Any]]:
        documents, done = beir.documents(), 0
        with progress_bar(f"encoding with {name}", show=show) as progress:
            while part := list(islice(documents, _BATCH)):
                # as a collection reads a record: the columns that hold something, a line each
                texts = ["\n".join(text for text in (one.title, one.text) if text.strip()) for one in part]
                yield [one.id for one in part], encoder.encode(texts)
                done += len(part)
                progress(done, len(corpus))

    found = exact_rankings(encoder.encode_queries(list(queries.values())), batches(), k)
    if encoder.truncated:
        tell(f"{encoder.truncated:,} texts were longer than {name} reads and were cut")
    about = {"documents": len(corpus), "missing_documents": 0, "other_documents": 0}
    return dict(zip(queries, found, strict=True)), about
