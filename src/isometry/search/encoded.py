"""Fixed dimensional encodings of a collection's segments: files beside them that can be built again at any time.

The manifest names every file with its digest: one projector (the drawn matrices, the tokens' mean, the code's
thresholds), and for each segment the codes of its records under that projector. A file that is missing, damaged or of
another segment is not used, and its records are looked at one by one until it is built again. Only the writer writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry.compression import FixedDimensionalEncoding, SignBinarizer, restore_compressor
from isometry.errors import CorruptionError
from isometry.search.indexes.encodings import EncodingScan
from isometry.search.indexes.multivector import MultiVectorIndex
from isometry.search.store.arrays import read_arrays, write_arrays
from isometry.search.store.segments import Segment
from isometry.types import VectorSets

FOLDER = "encodings"
# Measured on arXiv titles and abstracts with token vectors of MiniLM (docs/benchmarks/multivector.md): at equal length
# many repetitions of few buckets find more than the paper's 20 repetitions of 32, and one bit a coordinate loses nothing.
ENCODING = {"k_sim": 3, "projected": 16, "repetitions": 80, "center": True}
SHORTLIST = 400
_FORMAT = "isometry-encodings@1"
_SAMPLE_ITEMS, _CHUNK = 1000, 256


@dataclass(frozen=True)
class Encoded:
    """A projector and the codes of segments by their digests."""

    encoding: FixedDimensionalEncoding
    code: SignBinarizer
    shortlist: int
    codes: Mapping[str, np.ndarray]

    def covering(self, digests: Sequence[str]) -> list[str]:
        """The first of these segments, up to one that has no codes."""
        missing = next((number for number, digest in enumerate(digests) if digest not in self.codes), len(digests))
        return list(digests[:missing])

    def index(self, digests: Sequence[str]) -> MultiVectorIndex:
        """An index over these segments, in this order, to which they are still to be attached."""
        scan = EncodingScan(self.code)
        parts = [(self.codes[digest], np.ones(len(self.codes[digest]), np.float32)) for digest in digests]
        scan.restore(parts, self.encoding.dimension)
        return MultiVectorIndex(self.encoding, shortlist=self.shortlist, candidates=scan)


def open_encoded(folder: Path, note: Mapping[str, Any]) -> tuple[Encoded | None, str | None]:
    """What the manifest's note names, and what of it cannot be used; every byte is compared with its checksum."""
    try:
        encoding, code = _open_projector(folder, note)
    except (CorruptionError, KeyError, TypeError) as error:
        return None, f"the projector cannot be used: {error}"
    codes, problem = {}, None
    for digest, entry in note["segments"].items():
        try:
            head, arrays = read_arrays(folder / FOLDER / entry["file"], entry["digest"])
            if head.get("segment") != digest or head.get("projector") != note["projector"]["digest"]:
                raise CorruptionError(f"'{entry['file']}' was built for another segment")
            codes[digest] = arrays["codes"]
        except (CorruptionError, KeyError) as error:
            problem = str(error)
    return Encoded(encoding, code, int(note["shortlist"]), codes), problem


def encode_segments(
    folder: Path, note: Mapping[str, Any] | None, segments: Sequence[Segment], *,
    parameters: Mapping[str, Any], shortlist: int,
) -> dict[str, Any]:  # fmt: skip
    """Write what is missing for these segments, and return the note that the manifest is to hold.

    A projector is drawn where there is none of these parameters; its mean and thresholds are fitted on at most 1,000
    records. Raises: StorageError, CorruptionError (a segment).
    """
    held, _ = open_encoded(folder, note) if note is not None else (None, None)
    if held is None or note is None or note["parameters"] != dict(parameters):
        encoding, code = _fit(segments, parameters)
        projector = _write_projector(folder, encoding, code)
        done: dict[str, Any] = {}
    else:
        encoding, code, projector = held.encoding, held.code, note["projector"]
        done = {digest: entry for digest, entry in note["segments"].items() if digest in held.codes}
    named = {}
    for segment in segments:
        digest = segment.info.digest
        named[digest] = done.get(digest) or _write_codes(folder, encoding, code, projector["digest"], segment)
    return {"parameters": dict(parameters), "shortlist": shortlist, "projector": projector, "segments": named}


def remove_unnamed(folder: Path, note: Mapping[str, Any] | None) -> None:
    """Delete files of encodings that the manifest does not name; whoever has one open keeps it until it lets go."""
    keep = set() if note is None else {note["projector"]["file"], *(one["file"] for one in note["segments"].values())}
    for file in (folder / FOLDER).glob("*"):
        if file.name not in keep:
            file.unlink(missing_ok=True)


def _fit(segments: Sequence[Segment], parameters: Mapping[str, Any]) -> tuple[FixedDimensionalEncoding, SignBinarizer]:
    total = sum(len(segment.rows) for segment in segments)
    chosen = np.unique(np.linspace(0, total - 1, min(total, _SAMPLE_ITEMS)).astype(np.int64))
    parts, start = [], 0
    for segment in segments:
        low, high = np.searchsorted(chosen, (start, start + len(segment.rows)))
        parts.append(segment.sets(chosen[low:high] - start))
        start += len(segment.rows)
    sample = VectorSets.joined(parts, segments[0].vectors.shape[1])
    encoding = FixedDimensionalEncoding(**parameters).fit(sample.values)
    return encoding, SignBinarizer(rotate=False).fit(encoding.encode_documents(*sample))


def _write_codes(
    folder: Path, encoding: FixedDimensionalEncoding, code: SignBinarizer, projector: str, segment: Segment
) -> dict[str, str]:
    codes = np.empty((len(segment.rows), code.bytes_per_vector), np.uint8)
    for start in range(0, len(codes), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, len(codes)))
        codes[chosen] = code.transform(encoding.encode_documents(*segment.sets(chosen)))
    name = f"{segment.info.digest}-{projector[:8]}.enc"
    head = {"format": _FORMAT, "segment": segment.info.digest, "projector": projector}
    return {"file": name, "digest": write_arrays(folder / FOLDER / name, head, {"codes": codes})}


def _write_projector(folder: Path, encoding: FixedDimensionalEncoding, code: SignBinarizer) -> dict[str, str]:
    arrays = {f"encoding/{name}": array for name, array in encoding.learnt_arrays().items()}
    arrays |= {f"code/{name}": array for name, array in code.learnt_arrays().items()}
    head = {
        "format": _FORMAT,
        "dimension": encoding.n_features_in_,
        "encoding": encoding.get_params(deep=False),
        "code": code.get_params(deep=False),
    }
    key = hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=4)
    for array in arrays.values():
        key.update(np.ascontiguousarray(array).tobytes())
    name = f"projector-{key.hexdigest()}.enc"
    return {"file": name, "digest": write_arrays(folder / FOLDER / name, head, arrays)}


def _open_projector(folder: Path, note: Mapping[str, Any]) -> tuple[FixedDimensionalEncoding, SignBinarizer]:
    head, arrays = read_arrays(folder / FOLDER / note["projector"]["file"], note["projector"]["digest"])
    if head.get("format") != _FORMAT:
        raise CorruptionError("it is of another format")

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(prefix)}

    encoding = restore_compressor("FixedDimensionalEncoding", head["encoding"], head["dimension"], part("encoding/"))
    return encoding, restore_compressor("SignBinarizer", head["code"], encoding.dimension, part("code/"))
