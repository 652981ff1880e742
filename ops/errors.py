"""The exception tree of zoonet: every error that the library raises on purpose derives from ZoonetError.

Each message says what was expected, what was received and the likely fix, so that a user never needs the source.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DeviceError",
    "DownloadError",
    "FileError",
    "FormatError",
    "GradientError",
    "GraphError",
    "InputError",
    "IntegrityError",
    "MissingFileError",
    "OfflineError",
    "OperatorError",
    "ShapeError",
    "StateDictError",
    "TraceError",
    "TrainingError",
    "UnknownModelError",
    "UnsafeFileError",
    "UnsupportedFormatError",
    "WeightsError",
    "ZoonetError",
]


class ZoonetError(Exception):
    """Base of all zoonet errors.

    message: one sentence naming what failed. expected, received, fix: appended as "expected …; received …. Fix: …".
    """

    def __init__(
        self,
        message: str,
        *,
        expected: object | None = None,
        received: object | None = None,
        fix: str | None = None,
    ) -> None:
        self.message = message
        self.expected = expected
        self.received = received
        self.fix = fix
        parts = [message]
        details = []
        if expected is not None:
            details.append(f"expected {expected}")
        if received is not None:
            details.append(f"received {received}")
        if details:
            parts.append(": " + "; ".join(details))
        if fix:
            parts.append(f". Fix: {fix}")
        super().__init__("".join(parts))

    def __str__(self) -> str:
        return str(self.args[0])


class OperatorError(ZoonetError):
    """An operator was declared or called wrongly."""


class ShapeError(OperatorError, ValueError):
    """An array has a shape, rank or axis that the operator does not take."""


class DTypeError(OperatorError, TypeError):
    """An array has a data type that the operator does not take."""


class ArgumentError(OperatorError, ValueError):
    """An argument that is not an array has a value that the operator does not take."""


class DeviceError(OperatorError, RuntimeError):
    """A device is not available, or arrays on different devices were mixed."""


class TraceError(ZoonetError, TypeError):
    """A traced value was used where its contents must be known."""


class GradientError(ZoonetError, TypeError):
    """A gradient was asked for that does not exist."""


class GraphError(ZoonetError, ValueError):
    """A graph is not well formed."""


class FileError(ZoonetError):
    """A file cannot be read or written."""


class MissingFileError(FileError, FileNotFoundError):
    """A path names no file."""


class FormatError(FileError, ValueError):
    """A file is truncated, corrupt, or not in the format that it claims."""


class UnsupportedFormatError(FormatError):
    """A file is in a format, or uses a feature of one, that zoonet does not read or write."""


class UnsafeFileError(FormatError):
    """A file asks for something that reading must never do: run code, leave its folder, exhaust memory."""


class WeightsError(ZoonetError):
    """Pretrained weights cannot be found, obtained or matched to a network."""


class UnknownModelError(WeightsError, LookupError):
    """A name is in no catalog."""


class DownloadError(WeightsError, OSError):
    """A download failed."""


class NotAvailableError(DownloadError):
    """A server has no such file."""


class AccessDeniedError(DownloadError):
    """A server refuses a file without other credentials."""


class StorageError(DownloadError):
    """The cache has no room or cannot be written."""


class OfflineError(DownloadError):
    """A file is not cached and the network may not be used."""


class IntegrityError(WeightsError, ValueError):
    """A file's size or hash is not the published one."""


class StateDictError(WeightsError, ValueError):
    """Parameters do not fit the network: names missing, unexpected, or of another shape."""


class TrainingError(ZoonetError, ArithmeticError):
    """Training cannot go on: the loss or a gradient is not a number."""


class InputError(ZoonetError, ValueError):
    """A model was given an input that it cannot take."""
