"""Many clients at once against `isometry serve --writable` on loopback: what is answered, how fast, and is anything lost.

    python benchmarks/serving.py [--clients 200] [--seconds 60] [--records 2000] [--out docs/benchmarks]

Every client keeps one connection and asks one thing after the other: searches (vector, text, hybrid, filtered),
embeddings, records, facets, and writes and deletions of records of its own, whose acknowledgements it remembers.
Afterwards the server is ended by SIGTERM while requests run, the collection is opened, and every acknowledged write must
be there as it was acknowledged last, every acknowledged deletion gone, and no record that nobody wrote.
Exit code 1 when anything is lost, or answered with anything but 2xx or 429. Writes serving.md and serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

PAPERS = Path(__file__).resolve().parent.parent / "examples" / "arxiv-small.parquet"
WORDS = [
    "graph",
    "neural",
    "query",
    "music",
    "galaxy",
    "protein",
    "market",
    "language",
    "lattice",
    "plasma",
    "retrieval",
    "markov",
    "quantum",
    "river",
]
SHARES = {"search": 50, "text": 8, "hybrid": 8, "embeddings": 10, "record": 5, "facets": 3, "write": 12, "delete": 4}


@dataclass
class Tally:
    """What the clients saw; `held` is what was acknowledged last of every record, None where that is unknown."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in SHARES})
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    held: dict[str, set[int | None]] = field(default_factory=dict)
    acknowledged: int = 0


class Connection:
    """HTTP/1.1 over one kept connection, no more than is needed here."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of the answer. Raises OSError or EOFError where none comes."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            content = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
            answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = int(re.search(r"content-length: (\d+)", answered, re.IGNORECASE)[1])  # type: ignore[index]
            answer = json.loads(await reader.readexactly(length))
            if "connection: close" in answered.lower():
                self.close()
            return int(answered.split(" ", 2)[1]), answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def client(number: int, port: int, ids: list[str], tally: Tally, until: float) -> None:
    """Ask until the time is over; note every answer."""
    chance, connection, serial = random.Random(number), Connection(port), 0
    kinds, shares = list(SHARES), list(SHARES.values())
    while time.monotonic() < until:
        kind = chance.choices(kinds, shares)[0]
        words = " ".join(chance.choices(WORDS, k=3))
        changed: dict[str, int | None] = {}
        where = chance.choice([None, "year(created) >= 2010", "primary_category LIKE 'cs.%'"])
        method, path, body = "POST", "/collections/papers/search", None
        if kind in ("search", "text", "hybrid"):
            body = {"query": words, "k": 10, "where": where, "mode": "vector" if kind == "search" else kind}
        elif kind == "embeddings":
            path, body = "/v1/embeddings", {"input": [words, words[::-1]], "encoding_format": "base64"}
        elif kind == "record":
            method, path = "GET", f"/collections/papers/records/{chance.choice(ids)}"
        elif kind == "facets":
            method, path = "GET", "/collections/papers/facets?columns=primary_category&columns=year(created)"
        elif kind == "write":
            serial += 1
            path, names = "/collections/papers/records", [f"w{number}-{chance.randrange(40)}" for _ in range(3)]
            changed = dict.fromkeys(names, serial)
            body = {"records": [{"id": one, "title": words, "abstract": f"{words} {serial}", "serial": serial}
                                for one in changed]}  # fmt: skip
        else:
            method, path, name = "DELETE", "/collections/papers/records", f"w{number}-{chance.randrange(40)}"
            changed, body = {name: None}, {"ids": [name]}
        started = time.perf_counter()
        try:
            status, answer = await connection.ask(method, path, body)
        except (OSError, EOFError) as error:
            tally.unanswered.append(f"{kind}: {type(error).__name__} {error}")
            for name, value in changed.items():  # it may have happened
                tally.held[name] = {*tally.held.get(name, {None}), value}
            await asyncio.sleep(0.2)
            continue
        if status == 429:
            tally.busy[kind] += 1
            await asyncio.sleep(chance.uniform(0.02, 0.2))
        elif 200 <= status < 300 and _plausible(kind, answer):
            tally.seconds[kind].append(time.perf_counter() - started)
            tally.acknowledged += bool(changed)
            tally.held.update({name: {value} for name, value in changed.items()})
        else:
            tally.wrong.append(f"{kind}: {status} {json.dumps(answer)[:300]}")
    connection.close()


def _plausible(kind: str, answer: Any) -> bool:
    if kind in ("search", "hybrid"):
        return len(answer["hits"]) == min(10, answer["total"])
    if kind == "embeddings":
        return [one["index"] for one in answer["data"]] == [0, 1]
    return True


async def load(clients: int, seconds: float, port: int, ids: list[str]) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds
    await asyncio.gather(*(client(number, port, ids, tally, until) for number in range(clients)))
    return tally


async def end_under_load(server: subprocess.Popen[str], port: int, ids: list[str], tally: Tally) -> None:
    """SIGTERM while some clients write and search; what is cut off before it was answered is unknown, not lost."""
    after = Tally(held=tally.held)
    asking = [asyncio.create_task(client(10_000 + n, port, ids, after, time.monotonic() + 2)) for n in range(8)]
    await asyncio.sleep(1)
    server.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    tally.wrong += after.wrong
    tally.acknowledged += after.acknowledged


def lost_records(folder: Path, ids: list[str], held: dict[str, set[int | None]]) -> list[str]:
    """What the collection holds against what was acknowledged."""
    from isometry.search import Collection

    with Collection.open(folder, writable=True) as opened:
        there = {
            record["id"]: record.get("serial") for batch in opened.iter_records(4096) for record in batch.to_pylist()
        }
        problems = [f"{one} is gone" for one in ids if one not in there]
        problems += [
            f"{one} holds {there.get(one)}, acknowledged was {values}"
            for one, values in held.items()
            if there.get(one) not in values
        ]
        problems += [f"nobody wrote {one}" for one in there.keys() - set(ids) - held.keys()]
        report = opened.verify()
    return problems + [str(problem) for problem in report.problems]


def make_collection(folder: Path, records: int) -> list[str]:
    from isometry.encoders import load_encoder
    from isometry.records import open_source
    from isometry.search import Collection
    from isometry.search.ingest import ingest

    table = pq.read_table(PAPERS).slice(0, records)
    ingest(open_source(table, types={"created": "date"}), folder, load_encoder=lambda held: load_encoder())
    with Collection.open(folder) as opened:
        return opened.vectors()[0]


def start(folder: Path, options: list[str]) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "isometry", "serve", str(folder), "--writable", "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found:
            return server, int(found[1])
    raise SystemExit(f"the server did not start (exit code {server.wait()})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--max-requests", type=int, default=256, help="the server's limit of requests at once")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "papers"
        ids = make_collection(folder, given.records)
        server, port = start(folder, ["--max-requests", str(given.max_requests)])
        try:
            asyncio.run(Connection(port).ask("POST", "/v1/embeddings", {"input": "warm"}))
            tally = asyncio.run(load(given.clients, given.seconds, port, ids))
            _, metrics = asyncio.run(_metrics(port))
            asyncio.run(end_under_load(server, port, ids, tally))
            code = server.wait(120)
        finally:
            server.kill()
        lost = lost_records(folder, ids, tally.held)
    result = summary(given, tally, metrics, lost, code)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "serving.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "serving.md").write_text(page(result))
    print(page(result))
    for problem in [*lost[:10], *tally.wrong[:10], *tally.unanswered[:10]]:
        print(problem, file=sys.stderr)
    return 0 if result["lost_writes"] == result["wrong_answers"] == result["unanswered"] == code == 0 else 1


async def _metrics(port: int) -> tuple[str, dict[str, float]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    names = ("isometry_encoder_batch_sum", "isometry_encoder_batch_count", "isometry_encoder_seconds_total")
    return text, {name: float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1]) for name in names}  # type: ignore[index]


def summary(
    given: argparse.Namespace, tally: Tally, metrics: dict[str, float], lost: list[str], code: int
) -> dict[str, Any]:
    runs = metrics["isometry_encoder_batch_count"]
    everything = [one for times in tally.seconds.values() for one in times]
    return {
        "clients": given.clients, "seconds": given.seconds, "records": given.records,
        "limit_of_requests_at_once": given.max_requests,
        "answered": len(everything), "answered_per_second": round(len(everything) / given.seconds, 1),
        "told_to_wait": sum(tally.busy.values()), "acknowledged_writes": tally.acknowledged,
        "lost_writes": len(lost), "wrong_answers": len(tally.wrong), "unanswered": len(tally.unanswered),
        "exit_code_after_sigterm": code,
        "texts_per_encoder_run": round(metrics["isometry_encoder_batch_sum"] / max(runs, 1), 2),
        "milliseconds": {
            name: percentiles(times) for name, times in {"all": everything, **tally.seconds}.items() if times
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared by server and clients",
        "versions": {name: importlib.metadata.version(name) for name in ("isometry", "fastapi", "uvicorn", "numpy")},
    }  # fmt: skip


def percentiles(seconds: list[float]) -> dict[str, float]:
    times = 1000 * np.array(seconds)
    found = {f"p{level}": round(float(np.percentile(times, level)), 1) for level in (50, 90, 95, 99)}
    return {"requests": len(seconds), **found, "max": round(float(times.max()), 1)}


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Serving many clients",
        "",
        f"Written by `python benchmarks/serving.py`: {result['clients']} clients for {result['seconds']:g} s against "
        f"`isometry serve --writable` on loopback, {result['records']:,} papers, one connection a client, one request after "
        f"the other without a pause. Absolute times are this machine's ({result['machine']}).",
        "",
        f"**{result['answered']:,} requests answered ({result['answered_per_second']:,}/s), {result['told_to_wait']:,} told to "
        f"wait (429, limit {result['limit_of_requests_at_once']} at once); {result['wrong_answers']} answered with anything else, "
        f"{result['unanswered']} unanswered. {result['acknowledged_writes']:,} writes acknowledged, {result['lost_writes']} lost** "
        "after SIGTERM in the middle of requests "
        f"(exit code {result['exit_code_after_sigterm']}). Texts per encoder run: {result['texts_per_encoder_run']}.",
        "",
        "| request | answered | p50 ms | p90 ms | p95 ms | p99 ms | max ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["milliseconds"].items():
        lines.append(f"| {name} | {row['requests']:,} | " + " | ".join(f"{row[key]:,}" for key in list(row)[1:]) + " |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])


if __name__ == "__main__":
    sys.exit(main())
