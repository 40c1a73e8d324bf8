"""Work on files of strangers in a child process: libhdf5 may crash, hang or exhaust the memory on hostile ones.

The child has a time limit for each file and a limit of its memory. What it does not survive becomes one sentence.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import h5py

from trajtools import errors
from trajtools.errors import UnsafeFileError
from trajtools.store.files import one_line
from trajtools.store.reading import Run

resource: Any
try:
    import resource
except ImportError:  # Windows: a time limit only
    resource = None

SECONDS = 5.0
BYTES_PER_SECOND = 200e6  # large files take longer, by what they occupy on the disk
PATIENT_BYTES_PER_SECOND = 10e6  # where a file is read whole, from slow disks, too
MEMORY_BYTES = 2**30
_START_SECONDS = 60.0
_MEMORY_SIZE = 10_000
_SUBPROCESS = (
    "import json, sys; job = json.loads(sys.stdin.readline()); sys.path[:] = job['path']; "
    "from trajtools.store.isolation import serve; serve(job['task'], job['arguments'], job['items'])"
)


def open_isolated(path: str | os.PathLike[str]) -> Run:
    """Open a run whose file was first opened by a child process.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Run

    Raises
    ------
    UnsafeFileError
        If the child process crashed, or exceeded its time or memory.
    """
    ((_, result),) = in_child(examine, [os.path.abspath(path)])
    if isinstance(result, Exception):
        raise result
    _Opened.load().add([Path(path)])
    return Run(path)


def examine(path: str) -> None:
    """Touch everything of HDF5 that reading a run touches."""
    with Run(path) as run:
        run.locate_all()


def probe(
    paths: Sequence[str | os.PathLike[str]],
    task: Callable[[str], Any] = examine,
    advance: Callable[[int], None] | None = None,
) -> dict[Path, Any]:
    """Open files in a child process, but for those that this user opened before and that did not change since.

    Parameters
    ----------
    paths : sequence of path-like
        Files.
    task : callable
        What the child does with a file, see `in_child`; it must touch what will be read later, as `examine` does.
    advance : callable or None
        ``advance(n)`` is called as n more files are done: first with the number of those that were opened before.

    Returns
    -------
    dict of Path to object
        What the task returned, or the exception that it raised, with its one sentence; None of a file opened before.
    """
    result: dict[Path, Any] = dict.fromkeys(Path(path) for path in paths)
    opened = _Opened.load()
    unknown = [path for path in result if not opened.holds(path)]
    answers = in_child(task, [os.path.abspath(path) for path in unknown])
    if advance is not None:
        advance(len(result) - len(unknown))
    done: list[Path] = []
    try:
        for path, (_, answer) in zip(unknown, answers, strict=True):
            result[path] = answer
            done.append(path)
            if advance is not None:
                advance(1)
    finally:  # an interruption costs no more than the file under way
        opened.add([path for path in done if not isinstance(result[path], Exception)])
    return result


# ---------------------------------------------------------------------------------------------------------- the child


def in_child(task: Callable[[str], Any], items: Sequence[str], *, patient: bool = False) -> Iterator[tuple[str, Any]]:
    """Run a function of this package on each path in a child process.

    Parameters
    ----------
    task : callable
        A function of a module of trajtools, or a `functools.partial` of one with positional arguments that JSON can
        hold; takes a path after these, returns what JSON can hold.
    items : sequence of str
        Absolute paths.
    patient : bool
        The task reads the files whole; opened in time they must have been before.

    Yields
    ------
    item : str
        The path.
    result : object
        What the task returned, or the exception that it raised, or `UnsafeFileError` where the child did not survive.
    """
    left = list(items)
    while left:
        child = _Child(task, left)
        try:
            for item in list(left):
                answer = child.answer(item, _seconds(item, patient=patient))
                yield item, answer
                left.pop(0)
                if child.ended:
                    break
        finally:
            child.end()


class _Child:
    """A child process at work on a list of files."""

    def __init__(self, task: Callable[[str], Any], items: list[str]) -> None:
        self.ended = False
        self._lines: queue.Queue[bytes] = queue.Queue()
        if _can_fork():
            self._process: int | subprocess.Popen[bytes] = self._fork(task, items)
        else:
            self._process = self._spawn(task, items)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._is_ready = bool(self._next(_START_SECONDS))
        except queue.Empty:
            self._is_ready = False

    def answer(self, item: str, seconds: float) -> Any:
        """What the child says of a file."""
        if not self._is_ready:
            self.end()
            return UnsafeFileError(f"{item} is not opened: no process could be started to try whether it is safe")
        try:
            line = self._next(seconds)
        except queue.Empty:
            self.end()
            return UnsafeFileError(
                f"{item}: opening it did not end within {seconds:.0f} s; the file is damaged or hostile, "
                "or this machine is busy: then call it again"
            )
        if line:
            kind, value = json.loads(line)
            return value if kind is None else _error(kind, value)
        status = self.end()
        how = f"crashed HDF5 ({signal.Signals(-status).name})" if _is_signal(status) else "ended the process"
        return UnsafeFileError(f"{item}: opening it {how}; the file is damaged or hostile")

    def end(self) -> int:
        """Stop the child; returns its exit status, negative for a signal."""
        if self.ended:
            return 0
        self.ended = True
        if isinstance(self._process, subprocess.Popen):
            self._process.kill()
            status = self._process.wait()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        self._reader.join()
        self._pipe.close()
        return status

    def _next(self, seconds: float) -> bytes:
        return self._lines.get(timeout=seconds)

    def _read(self) -> None:
        for line in self._pipe:
            self._lines.put(line)
        self._lines.put(b"")

    def _fork(self, task: Callable[[str], Any], items: list[str]) -> int:
        out, into = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries, which the child does not use
            process = os.fork()
        if process == 0:
            try:
                os.close(out)
                _work(task, items, os.fdopen(into, "wb"))
            finally:
                os._exit(1)
        os.close(into)
        self._pipe: IO[bytes] = os.fdopen(out, "rb")
        return process

    def _spawn(self, task: Callable[[str], Any], items: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _SUBPROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._pipe = process.stdout
        function, arguments = (task.func, task.args) if isinstance(task, partial) else (task, ())
        name = f"{function.__module__}:{function.__qualname__}"
        job = {"path": sys.path, "task": name, "arguments": arguments, "items": items}
        with contextlib.suppress(OSError), process.stdin as stdin:  # a child that died says so by its silence
            stdin.write(json.dumps(job).encode() + b"\n")
        return process


def serve(task: str, arguments: list[Any], items: list[str]) -> NoReturn:
    """Be the child that was started as a program."""
    module, _, name = task.partition(":")
    pipe = os.fdopen(os.dup(1), "wb")
    _work(partial(getattr(importlib.import_module(module), name), *arguments), items, pipe)


def _work(task: Callable[[str], Any], items: list[str], pipe: IO[bytes]) -> NoReturn:
    faulthandler.disable()
    with open(os.devnull, "r+b") as nowhere:  # libraries that abort print
        for descriptor in (0, 1, 2):
            os.dup2(nowhere.fileno(), descriptor)
    _limit_memory()
    _send(pipe, None)
    for item in items:
        try:
            answer = [None, task(item)]
        except Exception as error:
            answer = [type(error).__name__, one_line(error)]
        _send(pipe, answer)
    os._exit(0)


def _send(pipe: IO[bytes], answer: Any) -> None:
    pipe.write(json.dumps(answer).encode() + b"\n")
    pipe.flush()


def _limit_memory() -> None:
    if resource is None:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _can_fork() -> bool:
    # JAX and torch run threads of their own, which a forked child lacks.
    return hasattr(os, "fork") and threading.active_count() == 1 and not {"jax", "torch"} & set(sys.modules)


def _seconds(item: str, *, patient: bool) -> float:
    start, rate = (12 * SECONDS, PATIENT_BYTES_PER_SECOND) if patient else (SECONDS, BYTES_PER_SECOND)
    with contextlib.suppress(OSError):
        status = os.stat(item)
        return start + getattr(status, "st_blocks", status.st_size // 512) * 512 / rate
    return start


def _is_signal(status: int) -> bool:
    return status < 0 and -status in set(signal.Signals) and -status != getattr(signal, "SIGKILL", 9)


def _error(kind: str, text: str) -> Exception:
    if kind == "FileNotFoundError":
        return FileNotFoundError(text)
    if kind == "MemoryError":
        return UnsafeFileError(f"opening the file takes more than {MEMORY_BYTES / 2**30:.0f} GiB of memory")
    error = getattr(errors, kind, None)
    return error(text) if error is not None else UnsafeFileError(f"the file cannot be opened: {text} ({kind})")


# ------------------------------------------------------------------------------------------- files opened before


class _Opened:
    """Files that this user opened before, by path, size, time of change and inode: a small file in the cache folder."""

    def __init__(self, entries: dict[str, list[int]]) -> None:
        self._entries = entries

    @classmethod
    def load(cls) -> _Opened:
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads(_memory_path().read_bytes())
            if isinstance(entries, dict):
                return cls(entries)
        return cls({})

    def holds(self, path: Path) -> bool:
        return self._entries.get(os.path.realpath(path)) == _state(path)

    def add(self, paths: Sequence[Path]) -> None:
        """Remember files; another process that does so at this moment may win, which costs a child later."""
        fresh = {os.path.realpath(path): state for path in paths if (state := _state(path))}
        if not fresh:
            return
        entries = {**{path: v for path, v in self._entries.items() if path not in fresh}, **fresh}
        entries = dict(list(entries.items())[-_MEMORY_SIZE:])
        place = _memory_path()
        with contextlib.suppress(OSError):  # no folder that can be written: examine again next time
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".opened", delete=False) as draft:
                draft.write(json.dumps(entries).encode())
            os.replace(draft.name, place)
        self._entries = entries


def _state(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _memory_path() -> Path:
    # What one HDF5 survives, another may not.
    return cache_folder() / f"opened-{h5py.version.hdf5_version}.json"


def cache_folder() -> Path:
    """Folder of this user for what can be deleted at any time; it may not exist yet."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "trajtools"
