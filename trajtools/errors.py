"""Exceptions. Every message names the input, the requirement and a remedy."""

from __future__ import annotations


class TrajtoolsError(Exception):
    """Base class of all errors of trajtools and its recorders."""


class FormatError(TrajtoolsError, ValueError):
    """The file is not a trajtools file, or breaks a MUST of the format."""


class UnsafeFileError(FormatError):
    """The file refers to data outside itself, or declares more data than it contains."""


class DamagedError(FormatError):
    """Data do not match their checksum, or are missing; the message names the states that are gone."""


class ArchitectureError(TrajtoolsError, ValueError):
    """The states do not match the parameter table of the run."""


class FileBusyError(TrajtoolsError, OSError):
    """Another process is writing the file."""


class RecordingError(TrajtoolsError, RuntimeError):
    """The recorder cannot continue; committed states stay valid."""


class PerturbationError(TrajtoolsError, ValueError):
    """The perturbation cannot be represented in the dtype of the weights."""


class SelectionError(TrajtoolsError, ValueError):
    """A selection of parameters, states or members matches nothing, or is out of range."""


class TooLargeError(TrajtoolsError, ValueError):
    """The result would be too large; the message suggests a smaller one."""


class DataError(TrajtoolsError, ValueError):
    """The data cannot be analysed: wrong shape, too short, or not finite."""


class NoNeighborsError(DataError):
    """No state has a neighbour under this rule."""


class InputWarning(UserWarning):
    """Something was done to data before they were used, and the result has no place to say so."""


class UnknownNameError(TrajtoolsError, ValueError):
    """There is no metric, method or option of this name; the message lists the available ones."""


class MissingDependencyError(TrajtoolsError, ImportError):
    """An optional package is missing; the message says how to install it."""
