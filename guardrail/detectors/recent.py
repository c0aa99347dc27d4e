"""Embeddings of the texts read last, so that one pass serves both a verdict and an embedding."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock

import numpy as np
import numpy.typing as npt

__all__ = ["Recent"]

Row = npt.NDArray[np.float32]


class Recent:
    """At most ``size`` rows, the oldest leave first. Holds digests, no text; threads may share it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: OrderedDict[bytes, Row] = OrderedDict()
        self._lock = Lock()

    def __setitem__(self, text: str, row: Row) -> None:
        with self._lock:
            self._rows[_digest(text)] = row
            if len(self._rows) > self._size:
                self._rows.popitem(last=False)

    def get(self, text: str) -> Row | None:
        """The row of a text, or None if it is not among the last ones."""
        with self._lock:
            return self._rows.get(_digest(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
