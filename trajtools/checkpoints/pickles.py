"""Read pickles without executing anything.

A pickle is a program for a stack machine, and that program may call any function. This machine calls none: numbers,
texts and containers come out as they are, arrays of NumPy as a `PickledArray`, and every other object as an `Inert`
record of its class and contents. A reader adds functions of its own for the classes that it can rebuild.

Time and memory are bounded: the instructions are counted, a length is checked before anything of it is read, and what
goes into a dict as a key cannot be made to collide.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MOST_INSTRUCTIONS = 4_000_000
LONGEST_INTEGER = 1024  # bytes
LONGEST_LINE = 100_000  # bytes
LARGEST_KEY = 2**60  # larger integers can be chosen so that they collide in a dict

Rebuild = Callable[..., Any]


class PickleError(ValueError):
    """The pickle is damaged, or larger than a pickle of a checkpoint can be."""


class Global:
    """The name of a class or function, which is never imported."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Inert:
    """An object that was not made.

    Attributes
    ----------
    origin : str
        Its class, or the function that would have made it.
    arguments : tuple
        What that would have been called with.
    state : object
        What ``__setstate__`` would have been called with.
    """

    __slots__ = ("arguments", "origin", "state")

    def __init__(self, origin: str, arguments: tuple[Any, ...] = ()) -> None:
        self.origin, self.arguments = origin, arguments
        self.state: Any = None


class PickledArray:
    """An array of NumPy: its bytes as they are in the pickle."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, data: Any = b"", fortran: bool = False) -> None:
        self.shape, self.dtype, self.data, self.fortran = shape, dtype, data, fortran

    def build(self, state: Any) -> None:
        """Take what ``ndarray.__setstate__`` takes."""
        if not (isinstance(state, tuple) and len(state) == 5):
            raise PickleError("an array has no shape and no data")
        _, self.shape, self.dtype, self.fortran, self.data = state


class PickledDtype:
    """A dtype of NumPy, by its code: ``<f4``; ``bfloat16`` and the like are their own codes."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def build(self, state: Any) -> None:
        """Take the byte order from what ``dtype.__setstate__`` takes."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if order in ("<", ">") and self.code[0] not in "<>" and "float" not in self.code:
            self.code = order + self.code


class Machine:
    """Runs the pickle at the beginning of some bytes; `at` is where it ends.

    Parameters
    ----------
    data : bytes or memoryview
        Long byte strings come out as views of it.
    rebuild : mapping
        What to call for the classes and functions of these names; all others become `Inert`.
    persistent : callable, optional
        Gives the object of a persistent id.
    at : int
        Where the pickle begins.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        rebuild: Mapping[str, Rebuild] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        at: int = 0,
    ) -> None:
        self.data, self.at = memoryview(data), at
        self.rebuild = {**BUILT_IN, **(rebuild or {})}
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the object that the pickle describes."""
        data, table = self.data, _INSTRUCTIONS
        try:
            for _ in range(MOST_INSTRUCTIONS):
                code = data[self.at]
                self.at += 1
                if code == STOP:
                    return self.stack.pop()
                table[code](self)
        except PickleError:
            raise
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as problem:
            raise PickleError(f"a damaged pickle ({type(problem).__name__} at byte {self.at})") from problem
        raise PickleError(f"a pickle of more than {MOST_INSTRUCTIONS:,} instructions, which no checkpoint needs")

    def take(self, size: int) -> memoryview:
        """Return the next bytes."""
        part = self.data[self.at : self.at + size]
        if size < 0 or len(part) < size:
            raise PickleError("a pickle that was cut short")
        self.at += size
        return part

    def byte(self) -> int:
        """Return the next byte."""
        self.at += 1
        return self.data[self.at - 1]

    def number(self, form: str) -> Any:
        """Return the next number of a format of `struct`."""
        known = _FORMS[form]
        (value,) = known.unpack_from(self.data, self.at)
        self.at += known.size
        return value

    def line(self, encoding: str = "utf-8") -> str:
        """Return the text up to the end of the line."""
        for most in (200, LONGEST_LINE):
            text, end, _ = bytes(self.data[self.at : self.at + most]).partition(b"\n")
            if end:
                self.at += len(text) + 1
                return text.decode(encoding)
        raise PickleError("a pickle that was cut short")

    def text(self, size: int) -> str:
        """Return the next text."""
        return str(self.take(size), "utf-8", "surrogatepass")

    def octets(self, size: int) -> bytes | memoryview:
        """Return the next byte string: short ones copied, long ones as a view."""
        part = self.take(size)
        return part if size > 4096 else bytes(part)

    def items(self) -> list[Any]:
        """Return what was pushed since the last mark, and take it from the stack."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def integer(self, size: int) -> int:
        """Return the next integer of many bytes."""
        if size > LONGEST_INTEGER:
            raise PickleError(f"an integer of {size} bytes, which no checkpoint needs")
        return int.from_bytes(self.take(size), "little", signed=True)

    def call(self, function: Any, arguments: Any) -> Any:
        """Rebuild an object, or make a record of it."""
        arguments = arguments if isinstance(arguments, tuple) else ()
        if not isinstance(function, Global):
            origin = function.origin if isinstance(function, Inert) else type(function).__name__
            return Inert(origin, arguments)
        known = self.rebuild.get(function.name)
        return Inert(function.name, arguments) if known is None else known(*arguments)

    def set(self, target: Any, pairs: list[Any]) -> None:
        """Put keys and values into a dict."""
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                target[_key(key)] = value

    def extend(self, target: Any, values: list[Any]) -> None:
        """Append to a list."""
        if isinstance(target, list):
            target.extend(values)


def _key(key: Any) -> Any:
    """A key of a dict that cannot be made to collide with others; what is none becomes a record."""
    if isinstance(key, str | bytes | bool | Inert | Global | None):
        return key
    if isinstance(key, int) and -LARGEST_KEY < key < LARGEST_KEY:
        return key
    return Inert(f"a {type(key).__name__} as a key")


def _push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        value = make(m)  # may change the stack
        m.stack.append(value)

    return run


def _global(module: Any, name: Any) -> Global:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise PickleError("a pickle with a class that has no name")
    return Global(f"{module}.{name}")


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.items()


def _pop_mark(m: Machine) -> None:
    m.items()


def _skip(size: int) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        m.take(size)

    return run


def _tuple(count: int) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return run


def _dict(m: Machine) -> None:
    pairs: list[Any] = m.items()
    made: dict[Any, Any] = {}
    m.set(made, pairs)
    m.stack.append(made)


def _append(m: Machine) -> None:
    value = m.stack.pop()
    m.extend(m.stack[-1], [value])


def _appends(m: Machine) -> None:
    values = m.items()
    m.extend(m.stack[-1], values)


def _setitem(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set(m.stack[-1], [key, value])


def _setitems(m: Machine) -> None:
    pairs = m.items()
    m.set(m.stack[-1], pairs)


def _reduce(m: Machine) -> None:
    arguments = m.stack.pop()
    m.stack[-1] = m.call(m.stack[-1], arguments)


def _newobj_ex(m: Machine) -> None:
    m.stack.pop()  # keyword arguments
    _reduce(m)


def _inst(m: Machine) -> None:
    cls, arguments = _global(m.line(), m.line()), m.items()
    m.stack.append(m.call(cls, tuple(arguments)))


def _obj(m: Machine) -> None:
    first, *arguments = m.items()
    m.stack.append(m.call(first, tuple(arguments)))


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, PickledArray | PickledDtype):
        target.build(state)


def _put(index: Callable[[Machine], int]) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        m.memo[index(m)] = m.stack[-1]

    return run


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(_global(module, name))


def _persistent(m: Machine, name: Any) -> Any:
    return Inert("a persistent id") if m.persistent is None else m.persistent(name)


def _quoted(m: Machine) -> str:
    quoted = m.line("latin-1")
    if len(quoted) < 2 or quoted[0] not in "\"'" or quoted[-1] != quoted[0]:
        raise PickleError("a text without quotes")
    return codecs.escape_decode(quoted[1:-1].encode("latin-1"))[0].decode("latin-1")


def _written_integer(m: Machine) -> Any:
    line = m.line().removesuffix("L")
    return line == "01" if line in ("00", "01") else int(line)  # Python limits the digits


def _extension(size: int) -> Callable[[Machine], Any]:
    return lambda m: Global(f"extension {int.from_bytes(m.take(size), 'little')}")


def _marked_tuple(m: Machine) -> None:
    items, m.stack = m.stack, m.marks.pop()
    m.stack.append(tuple(items))


def _remember(m: Machine) -> None:
    m.memo[m.data[m.at]] = m.stack[-1]
    m.at += 1


def _recall(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.at]])
    m.at += 1


STOP = ord(".")
_FORMS = {form: struct.Struct(form) for form in ("<i", "<H", "<I", "<Q", ">d")}
_INSTRUCTIONS: dict[int, Callable[[Machine], None]] = {
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): _push(lambda m: m.stack[-1]),
    # Numbers and constants
    ord("N"): _push(lambda m: None),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    ord("F"): _push(lambda m: float(m.line())),
    ord("I"): _push(_written_integer),
    ord("L"): _push(_written_integer),
    ord("J"): _push(lambda m: m.number("<i")),
    ord("K"): _push(lambda m: m.byte()),
    ord("M"): _push(lambda m: m.number("<H")),
    ord("G"): _push(lambda m: m.number(">d")),
    0x8A: _push(lambda m: m.integer(m.byte())),
    0x8B: _push(lambda m: m.integer(m.number("<I"))),
    # Texts and bytes
    ord("S"): _push(_quoted),
    ord("V"): _push(lambda m: m.line("raw-unicode-escape")),
    ord("T"): _push(lambda m: bytes(m.take(m.number("<i"))).decode("latin-1")),
    ord("U"): _push(lambda m: bytes(m.take(m.byte())).decode("latin-1")),
    ord("X"): _push(lambda m: m.text(m.number("<I"))),
    0x8C: _push(lambda m: m.text(m.byte())),
    0x8D: _push(lambda m: m.text(m.number("<Q"))),
    ord("B"): _push(lambda m: m.octets(m.number("<I"))),
    ord("C"): _push(lambda m: m.octets(m.byte())),
    0x8E: _push(lambda m: m.octets(m.number("<Q"))),
    0x96: _push(lambda m: m.octets(m.number("<Q"))),
    0x97: _push(lambda m: Inert("a buffer outside the pickle")),
    0x98: lambda m: None,
    # Containers
    ord(")"): _push(lambda m: ()),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): _marked_tuple,
    ord("]"): _push(lambda m: []),
    ord("l"): _push(lambda m: m.items()),
    ord("a"): _append,
    ord("e"): _appends,
    ord("}"): _push(lambda m: {}),
    ord("d"): _dict,
    ord("s"): _setitem,
    ord("u"): _setitems,
    0x8F: _push(lambda m: []),  # a set
    0x90: _appends,
    0x91: _push(lambda m: m.items()),
    # Objects
    ord("c"): _push(lambda m: _global(m.line(), m.line())),
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,
    0x92: _newobj_ex,
    ord("i"): _inst,
    ord("o"): _obj,
    ord("b"): _build,
    ord("P"): _push(lambda m: _persistent(m, m.line())),
    ord("Q"): _push(lambda m: _persistent(m, m.stack.pop())),
    0x82: _push(_extension(1)),
    0x83: _push(_extension(2)),
    0x84: _push(_extension(4)),
    # The memo
    ord("g"): _push(lambda m: m.memo[int(m.line())]),
    ord("h"): _recall,
    ord("j"): _push(lambda m: m.memo[m.number("<I")]),
    ord("p"): _put(lambda m: int(m.line())),
    ord("q"): _remember,
    ord("r"): _put(lambda m: m.number("<I")),
    0x94: _put(lambda m: len(m.memo)),
    # Framing
    0x80: _skip(1),
    0x95: _skip(8),
}  # fmt: skip


# What every reader can rebuild: containers, and arrays of NumPy


def _ordered(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """An ordered dict; Python 2 wrote its items as pairs."""
    return {_key(key): value for key, value in pairs}


def _object_of(cls: Any, *_: Any) -> Any:
    """What ``copyreg._reconstructor`` makes, of the class alone."""
    return Inert(cls.name if isinstance(cls, Global) else "an object")


def _encoded(text: Any, *_: Any) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else b""


def _dtype(code: Any, *_: Any) -> PickledDtype | Inert:
    if isinstance(code, Global):  # bfloat16 and the like of ml_dtypes
        return PickledDtype(code.name.rpartition(".")[2])
    if isinstance(code, str) and re.fullmatch(r"[<>|=]?[biufcSUVOmM?]\d{0,9}", code):
        return PickledDtype(code)
    return Inert("numpy.dtype", (code,))


def _array(*_: Any) -> PickledArray:
    return PickledArray((), None)


def _array_of_buffer(buffer: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> PickledArray:
    return PickledArray(shape, dtype, buffer, order == "F")


def _scalar(dtype: Any, data: Any = b"", *_: Any) -> PickledArray:
    return PickledArray((), dtype, data)


def _jax_array(function: Any, arguments: Any, state: Any, *_: Any) -> PickledArray:
    made = _array()
    made.build(state)
    return made


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items) if isinstance(items, list | tuple) else []


BUILT_IN: dict[str, Rebuild] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _encoded,
    "jax._src.array._reconstruct_array": _jax_array,
    "numpy.dtype": _dtype,
    **{f"{module}._reconstructor": _object_of for module in ("copyreg", "copy_reg")},
    **{f"{module}.dict": lambda *_: {} for module in ("builtins", "__builtin__")},
    **{f"{module}.{kind}": _list for module in ("builtins", "__builtin__") for kind in ("list", "set", "frozenset")},
    **{f"{module}.{kind}": lambda data=b"", *_: data for module in ("builtins", "__builtin__")
       for kind in ("bytes", "bytearray")},
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_of_buffer for core in ("core", "_core")},
}  # fmt: skip


def to_numpy(array: PickledArray) -> np.ndarray:
    """Return the array of a `PickledArray` whose size was checked."""
    data = array.data.encode("latin-1") if isinstance(array.data, str) else array.data
    code = {"bfloat16": "<u2"}.get(array.dtype.code, array.dtype.code)
    flat = np.frombuffer(data, np.dtype(code))
    return flat.reshape(array.shape[::-1]).T if array.fortran else flat.reshape(array.shape)
