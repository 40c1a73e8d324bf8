"""Exceptions. Every message names the input, the requirement and a remedy."""

from __future__ import annotations


class TrajtoolsError(Exception):
    """Anything that trajtools or its recorders refuse, with a sentence for the user."""


class FormatError(TrajtoolsError, ValueError):
    """The file is not a trajtools file, or breaks a MUST of the format."""


class UnsafeFileError(FormatError):
    """The file points outside itself, or declares more than it holds."""


class DamagedError(FormatError):
    """Data do not match their checksum, or are missing; the message names the states that are gone."""


class ArchitectureError(TrajtoolsError, ValueError):
    """The states do not fit the parameter table of the run."""


class FileBusyError(TrajtoolsError, OSError):
    """Another process is writing the file."""


class RecordingError(TrajtoolsError, RuntimeError):
    """The recorder cannot go on; what was committed stays valid."""


class PerturbationError(TrajtoolsError, ValueError):
    """The perturbation cannot be represented in the dtype of the weights."""


class SelectionError(TrajtoolsError, ValueError):
    """A selection of parameters, states or members matches nothing, or is out of range."""


class TooLargeError(TrajtoolsError, ValueError):
    """The answer would not fit; the message names a smaller question."""


class DataError(TrajtoolsError, ValueError):
    """The data cannot be analysed as asked: wrong shape, too short, nothing finite."""


class NoNeighborsError(DataError):
    """No state has a neighbour under this rule."""


class UnknownNameError(TrajtoolsError, ValueError):
    """A metric, method or option of this name does not exist; the message lists those that do."""


class MissingDependencyError(TrajtoolsError, ImportError):
    """An optional package is needed; the message says how to install it."""
