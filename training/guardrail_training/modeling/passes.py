"""Which rows to read in one pass of a model: those whose padding costs less than a pass of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["parts_by_cost"]


def parts_by_cost(
    *lengths: Sequence[int], size: int, pass_cost: int | None, order: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """Rows in parts of at most ``size`` that are cheapest to read, as places in ``lengths``.

    A part costs ``pass_cost`` tokens and, for each of its rows, the longest of each of the ``lengths``: every
    row is padded to those. Parts are made of neighbours in ``order``, by default that of the sums of the
    lengths. Without a cost there are as few parts as can be.
    """
    totals = [sum(row) for row in zip(*lengths, strict=True)]
    places = list(order) if order is not None else sorted(range(len(totals)), key=totals.__getitem__)
    if pass_cost is None:
        return torch.split(torch.tensor(places, dtype=torch.int64), size)
    # best[end]: the least cost of the first rows up to end, and where its last part begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(places) + 1):
        longest = [0] * len(lengths)
        found: list[tuple[int, int]] = []
        for begin in range(end - 1, max(0, end - size) - 1, -1):
            longest = [max(most, kind[places[begin]]) for most, kind in zip(longest, lengths, strict=True)]
            found.append((best[begin][0] + pass_cost + (end - begin) * sum(longest), begin))
        best.append(min(found))
    bounds = [len(places)]
    while bounds[-1]:
        bounds.append(best[bounds[-1]][1])
    return tuple(
        torch.tensor(places[begin:end]) for begin, end in zip(bounds[:0:-1], bounds[-2::-1], strict=True)
    )
