"""Time of samples: durations, stamps checked for evenness, and dates in text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.types import Ints

# Attoseconds in a unit, so that units of every datetime64 are whole numbers.
ATTOSECONDS = {
    "day": 86_400 * 10**18,
    "hour": 3_600 * 10**18,
    "minute": 60 * 10**18,
    "second": 10**18,
    "millisecond": 10**15,
    "microsecond": 10**12,
    "nanosecond": 10**9,
    "picosecond": 10**6,
    "femtosecond": 10**3,
    "attosecond": 1,
}
NUMPY_UNITS = dict(zip(("D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"), ATTOSECONDS.values(), strict=True))
NUMPY_UNITS["W"] = 7 * ATTOSECONDS["day"]
SPELLINGS = {  # the first is that of pandas
    "day": ("D", "d"),
    "hour": ("h", "hr"),
    "minute": ("min",),
    "second": ("s", "sec"),
    "millisecond": ("ms",),
    "microsecond": ("us", "µs"),
    "nanosecond": ("ns",),
}
UNIT_OF_SPELLING = {
    spelling.lower(): unit for unit, short in SPELLINGS.items() for spelling in (*short, unit, f"{unit}s")
}
WEEK = ("w", "week", "weeks")
# Names of columns that hold time; the value is the unit of their numbers.
TIME_NAMES = {
    **dict.fromkeys(("t", "time", "times", "timestamp", "timestamps", "date", "dates", "datetime"), "time"),
    **dict.fromkeys(("step", "steps"), "step"),
    "epoch": "epoch",
    "year": "year",
    "index": "sample",
}
JITTER = 0.01  # of a step: stamps that wander less are even
MONTHS_OF_YEAR = 12
DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%Y", "%d.%m.%y", "%d-%m-%Y", "%m-%d-%Y",
    "%Y-%m-%d", "%Y/%m/%d", "%d %b %Y", "%d-%b-%Y", "%b %d %Y",
)  # fmt: skip
HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_ISO = re.compile(r"\d{4}-\d{1,2}(-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?)?\s*(Z|[+-]\d{2}(?::?\d{2})?)?")
_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?\d+)?)?\s*([^\W\d]+)\s*")
_BRACKETED = re.compile(r"\s*(.+?)\s*[\[(]\s*([^\W\d]+)\s*[\])]\s*$")


class Duration(float):
    """A time between samples that knows its unit."""

    unit: str

    def __new__(cls, value: float, unit: str) -> Duration:
        """Create a duration of `value` units."""
        new = super().__new__(cls, value)
        new.unit = unit
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return Duration, (float(self), self.unit)


@dataclass(frozen=True, eq=False)
class Clock:
    """An even clock.

    Attributes
    ----------
    dt : float
        Time between two samples, in `unit`.
    unit : str
        Unit of `dt`.
    order : ndarray of int64 or None
        Rows in the order of time; None: as they stand.
    reasons : tuple of Reason
        What was done to the rows.
    start : str
        The first stamp.
    """

    dt: float
    unit: str
    order: Ints | None = None
    reasons: tuple[Reason, ...] = ()
    start: str = ""


def in_natural_unit(attoseconds: int | Fraction) -> Duration:
    """Duration in the largest unit of which it is a whole number."""
    for unit, size in ATTOSECONDS.items():
        if attoseconds >= size and Fraction(attoseconds) % size == 0:
            return Duration(float(Fraction(attoseconds) / size), unit)
    return Duration(float(Fraction(attoseconds) / ATTOSECONDS["second"]), "second")


def _in_largest_unit(attoseconds: float) -> Duration:
    """Duration in the largest unit of which it is at least one."""
    unit = next(unit for unit, size in ATTOSECONDS.items() if attoseconds >= size or unit == "attosecond")
    return Duration(attoseconds / ATTOSECONDS[unit], unit)


def duration(dt: Any) -> Any:
    """Time between samples as a float with its unit; plain numbers and None are returned as they are.

    Accepts `datetime.timedelta` (and so `pandas.Timedelta`), `numpy.timedelta64` and text such as ``"1h"``.
    """
    if isinstance(dt, np.timedelta64):  # for numpy an integer
        length = _duration_of_timedelta(dt)
    elif dt is None or (isinstance(dt, (int, float, np.integer, np.floating)) and not isinstance(dt, bool)):
        return dt
    elif isinstance(dt, str):
        length = _duration_of_text(dt)
    elif isinstance(dt, timedelta):
        # pandas.Timedelta is one, with nanoseconds that its microseconds leave out.
        whole = (dt.days * 86_400 + dt.seconds) * 10**18 + dt.microseconds * 10**12
        length = in_natural_unit(max(whole + int(getattr(dt, "nanoseconds", 0)) * 10**9, 0))
    elif hasattr(dt, "item") and getattr(dt, "ndim", None) == 0:
        return duration(dt.item())
    else:
        raise DataError(
            f"dt={dt!r}: the time between two samples is a positive number, a duration such as '1h', numpy.timedelta64 "
            "or pandas.Timedelta, or the array of times of all samples"
        )
    if not length > 0:
        raise DataError(f"dt={dt!r}: the time between two samples must be positive")
    return length


def _duration_of_text(text: str) -> Duration:
    match = _DURATION.fullmatch(text)
    unit = match[2] if match else ""
    if match is None or (unit.lower() not in UNIT_OF_SPELLING and unit.lower() not in WEEK):
        raise DataError(
            f"dt={text!r} is no duration; write a number and a unit (d, h, min, s, ms, us, ns or w), such as '15min'"
        )
    count = Fraction(match[1] or 1)
    size = 7 * ATTOSECONDS["day"] if unit.lower() in WEEK else ATTOSECONDS[UNIT_OF_SPELLING[unit.lower()]]
    return in_natural_unit(count * size)


def _duration_of_timedelta(dt: np.timedelta64) -> Duration:
    unit, count = np.datetime_data(dt.dtype)
    number = int(dt.astype(np.int64)) * count
    if unit in ("M", "Y"):
        return _in_months(number * (MONTHS_OF_YEAR if unit == "Y" else 1))
    if unit not in NUMPY_UNITS or np.isnat(dt):
        raise DataError(f"dt={dt!r} has no length; give it a unit, such as numpy.timedelta64(1, 'h')")
    return in_natural_unit(number * NUMPY_UNITS[unit])


def _in_months(months: int) -> Duration:
    if months > 0 and months % MONTHS_OF_YEAR == 0:
        return Duration(months / MONTHS_OF_YEAR, "year")
    return Duration(months, "month")


def time_name(name: str) -> tuple[str, str] | None:
    """Name of a column of times without its unit, and the unit of its numbers; None for other columns."""
    bracketed = _BRACKETED.match(name)
    plain, unit = (bracketed[1], bracketed[2]) if bracketed else (name, "")
    known = TIME_NAMES.get(plain.strip().lower().strip("_"))
    if known is None:
        return None
    return plain.strip().lower(), UNIT_OF_SPELLING.get(unit.lower(), unit) or known


def even_clock(stamps: NDArray[Any], what: str, *, unit: str = "time", remedy: str = "") -> Clock | None:
    """Clock of time stamps, which must be even and different; None for fewer than two.

    `what` names the stamps in messages, `remedy` is a way out for uneven ones, in which {step} stands for the usual
    step, and `unit` is that of plain numbers.
    """
    if len(stamps) < 2:
        return None
    unknown = np.isnat(stamps) if stamps.dtype.kind in "mM" else ~np.isfinite(stamps)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(
            f"{what} has no time in row {row} ({int(unknown.sum())} of {len(stamps)} are missing): drop these rows, "
            "which leaves gaps, or fill in their times"
        )
    order, reasons = _rising(stamps, what)
    rising = stamps if order is None else stamps[order]
    rows = np.arange(len(stamps)) if order is None else order
    _refuse_repeated(rising, rows, what)
    dt = _even_months(rising)
    if dt is None:
        dt = _even_steps(rising, rows, what, unit, remedy)
    return Clock(float(dt), dt.unit, order, reasons, _shown(rising[0]))


def _rising(stamps: NDArray[Any], what: str) -> tuple[Ints | None, tuple[Reason, ...]]:
    """Order that makes stamps rise, and the remark on it; None where they rise already."""
    if bool(np.all(stamps[1:] >= stamps[:-1])):
        return None, ()
    falls = bool(np.all(stamps[1:] <= stamps[:-1]))
    order = np.argsort(stamps, kind="stable").astype(np.int64)
    how = "falls" if falls else "is not in order"
    return order, (Reason("sorted-by-time", f"{what} {how}: the rows were sorted by time"),)


def _refuse_repeated(stamps: NDArray[Any], rows: Ints, what: str) -> None:
    repeated = np.flatnonzero(stamps[1:] == stamps[:-1])
    if len(repeated):
        at = int(repeated[0])
        raise DataError(
            f"{what} repeats: rows {rows[at]} and {rows[at + 1]} are both at {_shown(stamps[at])} ({len(repeated)} of "
            f"{len(stamps)} rows repeat one); remove the duplicates, average them, or analyse several series one by one"
        )


def _even_months(stamps: NDArray[Any]) -> Duration | None:
    """Step of dates that are whole months or years apart; None for others."""
    if stamps.dtype.kind != "M":
        return None
    months = stamps.astype("datetime64[M]")
    gaps = np.diff(months.astype(np.int64))
    if gaps[0] < 1 or not np.all(gaps == gaps[0]):
        return None
    within = stamps - months
    to_end = (months + np.timedelta64(1, "M")) - stamps
    if np.all(within == within[0]) or np.all(to_end == to_end[0]):
        return _in_months(int(gaps[0]))
    return None


def _even_steps(stamps: NDArray[Any], rows: Ints, what: str, unit: str, remedy: str) -> Duration:
    if stamps.dtype.kind in "mM":
        kind, count = np.datetime_data(stamps.dtype)
        scale = NUMPY_UNITS[kind] * count
        numbers, resolution = (stamps - stamps[0]).astype(np.int64), 1.0
    else:
        scale, numbers = 0, stamps
        resolution = _resolution(stamps)
    gaps = np.diff(numbers)
    usual = float(np.median(gaps))
    even = bool(np.all(np.abs(gaps - usual) <= JITTER * usual))
    mean = float(numbers[-1] - numbers[0]) / len(gaps)
    if not even:  # or rounded to the resolution of the stamps
        line = numbers[0] + mean * np.arange(len(numbers))
        even = bool(np.max(np.abs(numbers - line)) <= resolution) and 3 * resolution <= mean
    if not even:
        at = int(np.argmax(np.abs(gaps - usual) > JITTER * usual))
        before, after = _shown(stamps[at]), _shown(stamps[at + 1])
        size = [str(_length(gap, scale, unit)) for gap in (gaps[at], usual)]
        step = _for_pandas(usual, scale) if scale else ""
        ways = f"{remedy.format(step=step)}; or " if remedy else ""
        raise DataError(
            f"{what} is uneven: row {rows[at + 1]} ({after}) follows row {rows[at]} ({before}) after {size[0]}, most "
            f"steps are {size[1]}. Either {ways}interpolate to even steps; or drop the times, if the samples are even "
            "in truth"
        )
    if scale:
        exact = bool(np.all(gaps == gaps[0]))
        return in_natural_unit(int(gaps[0]) * scale) if exact else _in_largest_unit(mean * scale)
    return Duration(round_off(mean if not np.all(gaps == gaps[0]) else float(gaps[0]), resolution), unit)


def _resolution(stamps: NDArray[Any]) -> float:
    """Rounding of stamps: of their dtype, or the last decimal that any of them has."""
    if stamps.dtype.kind in "iub":
        return 0.0
    largest = float(np.max(np.abs(stamps)))
    rounding = 4 * float(np.finfo(stamps.dtype).eps) * largest
    part = np.asarray(stamps[:1000], dtype=np.float64)
    for decimals in range(7):
        if bool(np.all(np.abs(part - np.round(part, decimals)) <= 2 * rounding)):
            return max(rounding, 10.0**-decimals if decimals else 0.0)
    return rounding


def round_off(dt: float, resolution: float) -> float:
    """Step without the rounding of the stamps, where a short decimal explains it: .1 for .10000000000000142."""
    for digits in range(1, 13):
        short = float(f"{dt:.{digits}g}")
        if abs(short - dt) <= min(resolution, 1e-9 * abs(dt)):
            return short
    return dt


def _length(gap: Any, scale: int, unit: str) -> str:
    if not scale:
        return f"{float(gap):.6g}"
    length = in_natural_unit(Fraction(float(gap)) * scale)
    return f"{float(length):.6g} {length.unit}{'s' * (float(length) != 1)}"


def _for_pandas(gap: float, scale: int) -> str:
    """A step as pandas spells it, such as 15min."""
    length = in_natural_unit(Fraction(gap) * scale)
    return f"{float(length):g}{SPELLINGS.get(length.unit, (length.unit,))[0]}"


def _shown(stamp: Any) -> str:
    if isinstance(stamp, np.datetime64):
        text = str(stamp.astype("datetime64[us]") if np.datetime_data(stamp.dtype)[0] in ("ns", "ps") else stamp)
        return re.sub(r"(:\d\d)\.0+$", r"\1", text).removesuffix("T00:00:00")
    return str(stamp) if isinstance(stamp, np.timedelta64) else f"{float(stamp):.10g}"


def parse_dates(texts: Sequence[str]) -> NDArray[np.datetime64] | None:
    """Dates and times of a column of text; None if some text is neither a date nor empty.

    ISO 8601, and dates such as 5/6/1984: the order of day and month that every row allows and that makes the rows even,
    the day first where both or neither do.
    """
    filled = [text.strip() for text in texts if text.strip()]
    if not filled or not any(character.isdigit() for character in filled[0]):
        return None
    stamps = _iso_dates(texts) if _ISO.fullmatch(filled[0]) else None
    if stamps is not None:
        return stamps
    readings = []
    for form in (date + hour for date in DATES for hour in HOURS):
        # A sample of the rows shows most formats that fail, before all are read.
        if all(_matches(text, form) for text in (filled[0], filled[-1], *filled[:: max(1, len(filled) // 50)])):
            try:
                readings.append(np.array([_stamp(text, form) for text in texts], dtype="datetime64[us]"))
            except ValueError:
                continue
    return next((one for one in readings if _is_even(one)), readings[0] if readings else None)


def _is_even(stamps: NDArray[Any]) -> bool:
    try:
        even_clock(stamps, "time")
    except DataError:
        return False
    return True


def _stamp(text: str, form: str) -> Any:
    return datetime.strptime(text.strip(), form) if text.strip() else np.datetime64("NaT")


def _matches(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _iso_dates(texts: Sequence[str]) -> NDArray[np.datetime64] | None:
    date = len("2001-01-01")
    if not any("+" in text[date:] or "-" in text[date:] for text in texts):  # all in one zone, read by numpy at once
        stripped = [text.strip().replace(" ", "T").replace(",", ".").removesuffix("Z") for text in texts]
        try:
            return np.array(stripped, dtype="datetime64[us]")
        except ValueError:
            return None
    stamps = np.empty(len(texts), dtype="datetime64[ns]" if any("." in text for text in texts) else "datetime64[us]")
    for row, text in enumerate(texts):
        plain = text.strip().replace(",", ".")
        match = _ISO.fullmatch(plain) if plain else None
        if plain and match is None:
            return None
        zone = match[5] if match else None
        body = plain[: match.start(5)].strip() if match and zone else plain
        try:
            stamps[row] = np.datetime64(body.replace(" ", "T")) if plain else np.datetime64("NaT")
        except ValueError:
            return None
        if zone and zone != "Z":
            hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > len("+00") else 0
            offset = np.timedelta64(60 * hours + minutes, "m")
            stamps[row] = stamps[row] + offset if zone[0] == "-" else stamps[row] - offset
    return stamps
