"""HDF5 <-> runs. All access to files is in this package; FORMAT.md is its specification."""

from __future__ import annotations

from trajtools.errors import (
    ArchitectureError,
    DataError,
    FileBusyError,
    FormatError,
    InterruptedWriteError,
    MissingDependencyError,
    PerturbationError,
    RecordingError,
    RunExistsError,
    RunNotFoundError,
    SelectionError,
    TooLargeError,
    TrajtoolsError,
    UnknownNameError,
    UnsafeFileError,
)
from trajtools.store.dtypes import promote, stored_dtype, widen
from trajtools.store.files import File
from trajtools.store.geometry import StreamLayout
from trajtools.store.repairing import Repair, repair
from trajtools.store.resuming import Tail
from trajtools.store.runs import Run
from trajtools.store.states import StoredArray, StoredStates
from trajtools.store.transaction import claim
from trajtools.store.validation import Problem, validate
from trajtools.store.writer import RunWriter
from trajtools.wiring import KINDS, NOISES, Member, NodeSet, Parameter, describe

__all__ = [
    "KINDS",
    "NOISES",
    "ArchitectureError",
    "DataError",
    "File",
    "FileBusyError",
    "FormatError",
    "InterruptedWriteError",
    "Member",
    "MissingDependencyError",
    "NodeSet",
    "Parameter",
    "Problem",
    "Repair",
    "PerturbationError",
    "RecordingError",
    "Run",
    "RunExistsError",
    "RunNotFoundError",
    "RunWriter",
    "SelectionError",
    "StoredArray",
    "StoredStates",
    "StreamLayout",
    "Tail",
    "TooLargeError",
    "TrajtoolsError",
    "UnknownNameError",
    "UnsafeFileError",
    "claim",
    "describe",
    "open",
    "promote",
    "repair",
    "stored_dtype",
    "validate",
    "widen",
]

open = File
