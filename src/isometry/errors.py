"""Every error that Isometry raises on purpose.

IsometryError                      exit code 2 unless said otherwise
├── InputError (ValueError)        what was given cannot be used
│   ├── RecordError                a row of a source: file, row, column, reason
│   ├── FilterError                a `where` expression
│   ├── ShapeError                 an array of the wrong shape or with NaN
│   └── FingerprintError           vectors or queries of another encoder
├── NotFoundError (LookupError)    a collection, record, recipe, data set that is not there
├── ExistsError (InputError)       something is there already
├── MissingExtraError (ImportError) an optional dependency; the message holds the install line
├── LockedError                    another process writes                        exit 1
├── DivergedError (ArithmeticError) training met a loss or weight that is no number  exit 1
├── CorruptionError                stored bytes are not what was written          exit 1
└── StorageError (OSError)         the disk refused                               exit 1
"""

from __future__ import annotations


class IsometryError(Exception):
    """Root of the tree. `str(error)` is one sentence for a person; `exit_code` is what the command line returns."""

    exit_code = 2


class InputError(IsometryError, ValueError):
    """What was given cannot be used: the message says what is wrong, where, and what to do."""


class RecordError(InputError):
    """One row of a source cannot be taken.

    Attributes:
        file: the source's name. row: 1-based data row, or None for the file as a whole. column: name or None.
        reason: what is wrong with it, without the place.
    """

    def __init__(self, file: str, row: int | None, column: str | None, reason: str) -> None:
        self.file, self.row, self.column, self.reason = file, row, column, reason
        place = file + (f", row {row}" if row is not None else "") + (f", column '{column}'" if column else "")
        super().__init__(f"{place}: {reason}")


class FilterError(InputError):
    """A `where` expression cannot be parsed or names an attribute that is not there."""


class ShapeError(InputError):
    """An array has the wrong shape, or holds NaN or infinity."""


class FingerprintError(InputError):
    """Vectors or queries come from another encoder than the collection's."""


class ExistsError(InputError):
    """The thing to be created is there already."""


class NotFoundError(IsometryError, LookupError):
    """A collection, record, recipe or data set that does not exist."""


class MissingExtraError(IsometryError, ImportError):
    """An optional dependency is missing; the message names the install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'isometry[{extra}]'")


class LockedError(IsometryError):
    """Another process holds the collection for writing."""

    exit_code = 1


class DivergedError(IsometryError, ArithmeticError):
    """Training met a loss or a weight that is no number; the message names the batch and the last good checkpoint."""

    exit_code = 1


class CorruptionError(IsometryError):
    """Stored bytes are not what was written."""

    exit_code = 1


class StorageError(IsometryError, OSError):
    """The disk refused a read or a write."""

    exit_code = 1
