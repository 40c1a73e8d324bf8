"""How a (T, M, P) stream of states is cut into chunks, and how a block of states lies in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trajtools.store.dtypes import stored_dtype

MAX_ROWS = 64
CHUNK_BYTES = 2**20
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StreamLayout:
    """Geometry of one tiled dataset of shape (T, n_members, n_parameters).

    Chunks are ``(rows, 1, columns)``. A *block* is `rows` consecutive states of all members; a *tile* is one chunk of
    a block. In memory a block is an array (n_members, n_column_chunks, rows, columns), so that each tile is contiguous
    and goes to disk as it is.

    Attributes
    ----------
    n_parameters, n_members : int
        Entries of a state (P) and networks of the run (M).
    logical_dtype : str
        What the numbers mean: ``float16``, ``float32``, ``float64`` or ``bfloat16`` (held as uint16).
    rows : int
        States in a block.
    columns : int
        Entries of a state in a tile; the last tile of a state is padded with zeros.
    """

    n_parameters: int
    n_members: int
    logical_dtype: str
    rows: int
    columns: int

    @classmethod
    def choose(
        cls,
        n_parameters: int,
        n_members: int,
        dtype: object,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> StreamLayout:
        """Choose 64 states in a block (fewer if they exceed `block_bytes`), and chunks near `chunk_bytes`."""
        if n_parameters < 1 or n_members < 1:
            raise ValueError(
                f"a state needs at least one entry and one member, got P = {n_parameters}, M = {n_members}"
            )
        name, stored = stored_dtype(dtype)
        rows = min(MAX_ROWS, max(1, block_bytes // (n_members * n_parameters * stored.itemsize)))
        pieces = max(1, round(n_parameters * rows * stored.itemsize / chunk_bytes))
        return cls(n_parameters, n_members, name, rows, -(-n_parameters // pieces))

    def beside(self, n_parameters: int, dtype: object) -> StreamLayout:
        """Choose the geometry of a second stream, whose blocks are as long as those of this one."""
        chosen = StreamLayout.choose(n_parameters, self.n_members, dtype)
        return StreamLayout(n_parameters, self.n_members, chosen.logical_dtype, self.rows, chosen.columns)

    @property
    def n_column_chunks(self) -> int:
        """Tiles of one state."""
        return -(-self.n_parameters // self.columns)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the tiles and of the dataset (uint16 for bfloat16)."""
        return stored_dtype(self.logical_dtype)[1]

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Chunk shape of the dataset."""
        return (self.rows, 1, self.columns)

    @property
    def block_bytes(self) -> int:
        """Size of a block on disk and in memory."""
        return self.n_members * self.n_column_chunks * self.rows * self.columns * self.dtype.itemsize

    def new_tiles(self) -> NDArray[np.generic]:
        """Give an empty block."""
        return np.zeros((self.n_members, self.n_column_chunks, self.rows, self.columns), self.dtype)

    def put(self, tiles: NDArray[np.generic], row: int, member: int, state: NDArray[np.generic]) -> None:
        """Copy one state into its row of a block."""
        whole = self.n_parameters // self.columns
        cut = whole * self.columns
        tiles[member, :whole, row] = state[:cut].reshape(whole, self.columns)
        if cut < self.n_parameters:
            tiles[member, whole, row, : self.n_parameters - cut] = state[cut:]

    def take(self, tiles: NDArray[np.generic], count: int) -> NDArray[np.generic]:
        """Give the first states of a block as a plain array."""
        flat = tiles[:, :, :count].transpose(2, 0, 1, 3).reshape(count, self.n_members, -1)
        return flat[:, :, : self.n_parameters]
