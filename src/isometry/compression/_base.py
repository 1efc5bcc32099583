"""What every vector-to-code estimator shares: input checks, scoring through decoding, byte accounting, saved form."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from isometry.errors import CorruptionError, InputError, MissingExtraError, NotFoundError, ShapeError
from isometry.types import Scorer

_FORMAT = "isometry-compressor@1"


class SavedEstimator(BaseEstimator):
    """An estimator whose learnt state is arrays, numbers and mappings of arrays in attributes ending in "_"."""

    @property
    def shared_bytes(self) -> int:
        """Bytes that are stored once: codebooks, rotations, ranges."""
        check_is_fitted(self)
        return sum(array.nbytes for array in self._state().values())

    def save(self, path: str | Path) -> None:
        """Write a folder of manifest.json and learnt.safetensors; it appears whole or not at all.

        Raises: InputError where something is there already.
        """
        check_is_fitted(self)
        try:
            from safetensors.numpy import save as to_bytes
        except ImportError as error:
            raise MissingExtraError("Saving a compressor", "text") from error
        path = Path(path)
        if path.exists():
            raise InputError(f"'{path}' is there already; choose another folder for the {type(self).__name__}.")
        learnt = to_bytes({name: np.array(array, order="C") for name, array in self._state().items()})
        manifest = {
            "format": _FORMAT,
            "part": type(self).__name__,
            "parameters": self.get_params(deep=False),
            "n_features_in": self.n_features_in_,
            "learnt": hashlib.blake2b(learnt, digest_size=16).hexdigest(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            _write(temporary / "learnt.safetensors", learnt)
            _write(temporary / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def learnt_arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt, by name, as `restore_compressor` takes it."""
        check_is_fitted(self)
        return self._state()

    def _state(self) -> dict[str, np.ndarray]:
        """Learnt attributes as named arrays; 'weights_/x' is entry x of the mapping `weights_`."""
        state: dict[str, np.ndarray] = {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("_") or name in ("n_features_in_", "feature_names_in_"):
                continue
            if isinstance(value, dict):
                state.update({f"{name}/{key}": np.asarray(entry) for key, entry in value.items()})
            elif value is not None:
                state[name] = np.asarray(value)
        return state

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        for name, value in state.items():
            attribute, _, key = name.partition("/")
            if key:
                self.__dict__.setdefault(attribute, {})[key] = value
            elif value.ndim:
                setattr(self, attribute, value)
            else:  # counts are Python's again: they go into plans, which are printed as JSON
                setattr(self, attribute, value.item() if value.dtype.kind in "iub" else value[()])


class CodeEstimator(TransformerMixin, SavedEstimator):
    """Base of the compressors: vectors (n, d) float32 to codes (n, b) uint8.

    A subclass learns in `_learn(X)` attributes that end in an underscore and are arrays, numbers or mappings of arrays,
    gives `_encode(X) -> (n, b) uint8` and `_decode(codes) -> (n, d) float32`, and sets `bytes_per_vector`. Everything
    learnt is saved.
    """

    def fit(self, X: np.ndarray, y: Any = None) -> CodeEstimator:
        """Learn from vectors (n, d). Raises: ShapeError or ValueError for NaN, infinity and wrong shapes."""
        self._learn(self._check(X, reset=True))
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Vectors (n, d) to codes (n, bytes_per_vector) uint8."""
        check_is_fitted(self)
        return self._encode(self._check(X, reset=False))

    def inverse_transform(self, codes: np.ndarray) -> np.ndarray:
        """Codes (n, bytes_per_vector) to the vectors (n, d) float32 they stand for."""
        return self._decode(self._check_codes(codes))

    def scorer(self, queries: np.ndarray) -> Scorer:
        """Queries (q, d) to a function from codes (m, b) to asymmetric inner products (q, m) float32."""
        check_is_fitted(self)
        queries = self._check(queries, reset=False)

        def score(codes: np.ndarray) -> np.ndarray:
            return queries @ self.inverse_transform(codes).T

        return score

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of one code, everything that is stored for each vector included."""
        raise AttributeError(f"{type(self).__name__} does not say how many bytes a code has.")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _learn(self, X: np.ndarray) -> None:
        raise AttributeError(f"{type(self).__name__} does not say what it learns.")

    def _encode(self, X: np.ndarray) -> np.ndarray:
        raise AttributeError(f"{type(self).__name__} does not say how it encodes.")

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        raise AttributeError(f"{type(self).__name__} does not say how it decodes.")

    def _check(self, X: np.ndarray, *, reset: bool) -> np.ndarray:
        X = validate_data(self, X, reset=reset, dtype=np.float32, order="C")
        return X

    def _check_codes(self, codes: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.dtype != np.uint8 or codes.shape[1] != self.bytes_per_vector:
            expected = f"{type(self).__name__} reads uint8 (n, {self.bytes_per_vector})"
            raise ShapeError(f"codes are {codes.dtype} of shape {codes.shape}; {expected}.")
        return np.ascontiguousarray(codes)


def load_compressor(path: str | Path) -> Any:
    """Read the estimator that its `save` wrote.

    Raises: NotFoundError where nothing is, CorruptionError where a byte is not what was written.
    """
    from safetensors.numpy import load

    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        learnt = (path / "learnt.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"'{path}' holds no compressor: {Path(error.filename).name} is missing.") from error
    except ValueError as error:
        raise CorruptionError(f"'{path / 'manifest.json'}' is not readable; write the compressor again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CorruptionError(f"'{path / 'manifest.json'}' is not of the format {_FORMAT}.")
    if hashlib.blake2b(learnt, digest_size=16).hexdigest() != manifest.get("learnt"):
        raise CorruptionError(f"'{path / 'learnt.safetensors'}' differs from its checksum; write the compressor again.")
    try:
        return restore_compressor(manifest["part"], manifest["parameters"], manifest["n_features_in"], load(learnt))
    except (InputError, KeyError) as error:
        raise CorruptionError(f"'{path / 'manifest.json'}' is not readable ({error}); write it again.") from error


def restore_compressor(
    part: str,
    parameters: Mapping[str, Any],
    n_features_in: int | None = None,
    learnt: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """The estimator of that class name with these parameters; with what it learnt where that is given.

    Raises: InputError for an unknown part, or parameters that it does not take.
    """
    room = importlib.import_module("isometry.compression")
    kind = getattr(room, part, None) if part in room.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, SavedEstimator)):
        raise InputError(f"there is no compressor '{part}'")
    try:
        estimator = kind(**parameters)
    except TypeError as error:
        raise InputError(f"{part} does not take these parameters: {error}") from error
    if learnt is not None:
        estimator.n_features_in_ = int(n_features_in or 0)
        estimator._restore(dict(learnt))
    return estimator


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
