"""Bytes of a file as lines of text: decompressed on the way, bounded in length, never a surprise at the end."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from codecs import lookup
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from isometry.errors import InputError, NotFoundError, RecordError
from isometry.records._chunks import MAX_LINE_BYTES

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_COMPRESSIONS = (".gz", ".zst")
_SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl",
    ".ndjson": "jsonl", ".json": "json", ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip


def format_of_name(path: Path) -> str | None:
    """Format by the file's suffix (before .gz or .zst), None where it says nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def known_encoding(name: str) -> str:
    """The encoding's own name, 'utf-8' for any spelling of it. Raises InputError where there is none of that name."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()  # refuses 'hex' and 'zip' too, which are no text
        found = lookup(name)
    except (LookupError, ValueError):
        raise InputError(f"no encoding '{name}'; write it as utf-8, latin-1, cp1252, utf-16 or shift_jis") from None
    return "utf-8" if found.name in ("utf-8", "utf-8-sig") else found.name


def format_of_content(path: Path, name: str, encoding: str = "utf-8") -> str:
    """Format by the first bytes; text that is none of the others is csv.

    Raises:
        InputError: an empty file, or one of a kind that is not read.
    """
    with guarded(name), open_bytes(path) as stream:
        head = stream.read(65536)
    if encoding != "utf-8" and not head.startswith((b"PAR1", b"ARROW1", b"PK\x03\x04")):
        head = head.decode(encoding, "ignore").encode("utf-8", "ignore")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        raise InputError(f"{name} is empty: give a file with records in it")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    refuse_binary(head, name)
    if text.startswith(b"{"):
        return "jsonl"
    if text.startswith(b"["):
        return "json"
    first = text.split(b"\n", 1)[0]
    return "tsv" if first.count(b"\t") > first.count(b",") else "csv"


def refuse_binary(head: bytes, name: str) -> None:
    """Raise InputError where the first bytes are those of another kind of file than text in UTF-8."""
    if head.startswith(b"PK\x03\x04"):
        raise InputError(f"{name} is a zip or Excel file: unpack it, or save the sheet as csv")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name} is text in UTF-16: read it with --encoding utf-16")
    if head.startswith((b"PAR1", b"ARROW1")):
        kind = "parquet" if head.startswith(b"PAR1") else "arrow"
        raise InputError(f"{name} is a {kind} file by its content: name it so, or give --format {kind}")


def check_readable(path: Path) -> os.stat_result:
    """The file's status. Raises NotFoundError where it is missing and InputError where it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK):
            raise InputError(f"{show_path(path)} cannot be read: permission denied")
    except FileNotFoundError:
        raise NotFoundError(f"no file or folder {show_path(path)}: check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{show_path(path)} cannot be read: {str(reason).lower()}") from error
    return status


def show_path(path: Path | str) -> str:
    """A path for messages, also where its bytes are not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where its first bytes are those of gzip or zstd."""
    with path.open("rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        compression = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else None
        if compression is None:
            yield raw
            return
        # Arrow's stream notices a cut-off end in both formats and reads members written one after the other.
        with pa.input_stream(raw, compression=compression) as stream:
            yield stream


@contextmanager
def open_text(path: Path, name: str, encoding: str = "utf-8") -> Iterator[io.TextIOWrapper]:
    """The file as text. Bytes that are not of the encoding become lone surrogates, so that their row can be named."""
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=codec(encoding), errors="surrogateescape", newline="")
        try:
            yield text
        finally:
            text.detach()


def codec(encoding: str) -> str:
    """What decodes a file from its beginning: UTF-8 may start with a mark."""
    return "utf-8-sig" if encoding == "utf-8" else encoding


def read_line(text: io.TextIOWrapper, name: str, line: int) -> str:
    """The next line with its end, '' at the end of the file. Raises InputError where it is longer than the limit."""
    value = text.readline(MAX_LINE_BYTES)
    if len(value) >= MAX_LINE_BYTES:
        raise InputError(
            f"{name}, line {line}: the line is longer than {MAX_LINE_BYTES >> 20} MB; "
            "check that the file has line ends and is of the format you named"
        )
    return value


@contextmanager
def guarded(name: str, place: str = "") -> Iterator[None]:
    """Turn what the machine or Arrow says about a damaged file into one sentence."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        cause = " ".join(str(error).split(". Detail:")[0].split())[:160].rstrip(".")
        raise RecordError(
            name, None, None, f"the file is cut off or damaged{place} ({cause}); get a whole copy of it"
        ) from error
    except UnicodeDecodeError as error:
        raise RecordError(
            name, None, None, f"the text{place} is not {error.encoding.upper()} ({error.reason}); name its encoding"
        ) from error


def spool(stream: IO[bytes], suffix: str = "") -> Path:
    """Copy a stream that can be read only once into a temporary file; the caller removes it."""
    with tempfile.NamedTemporaryFile("wb", prefix="isometry-", suffix=suffix, delete=False) as target:
        try:
            while block := stream.read(1 << 20):
                target.write(block)
        except BaseException:
            Path(target.name).unlink(missing_ok=True)
            raise
    return Path(target.name)
