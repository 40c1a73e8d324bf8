"""lines"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trajtools.results.plain import Result
from trajtools.types import Ints

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class Lines(Result):
    """Numbers of lines of a recurrence plot by their length, and of recurrences by their lag.

    Attributes
    ----------
    diagonal, one_end, both_ends : ndarray of int64, shape (n,)
        Entry l: diagonal lines of length l: all; those with one end at a border of the plot (or at a state that is not
        finite); those with both.
    vertical, white, white_cut, times : ndarray of int64, shape (n,)
        Vertical lines; white vertical lines between two black ones; those with an end at a border, at the Theiler
        window or at a state that is not finite; recurrence times.
    recurrences, cells : ndarray of int64, shape (T + S - 1,)
        Recurrences, and pairs of finite states, of each lag ``i - j``, from ``1 - S`` on.
    square_recurrences, square_cells : ndarray of int64, shape (T + S - 1,)
        Those in the largest square that begins with the first states: the same where T = S.
    shape : (int, int)
        T and S.
    """

    diagonal: Ints
    one_end: Ints
    both_ends: Ints
    vertical: Ints
    white: Ints
    white_cut: Ints
    times: Ints
    recurrences: Ints
    cells: Ints
    square_recurrences: Ints
    square_cells: Ints
    shape: tuple[int, int]

    def outside(self, theiler: int) -> tuple[int, int]:
        """Count outside a Theiler window.

        Parameters
        ----------
        theiler : int, in samples
            Lags closer to zero than this are left out.

        Returns
        -------
        recurrences, cells : int
        """
        rows, columns = self.shape
        if theiler == 0:
            return int(self.recurrences.sum()), int(self.cells.sum())
        low, high = max(columns - theiler, 0), columns - 1 + theiler
        inside = slice(low, min(high, rows + columns - 1))
        return (
            int(self.recurrences.sum() - self.recurrences[inside].sum()),
            int(self.cells.sum() - self.cells[inside].sum()),
        )
