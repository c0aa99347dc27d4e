"""Rows in passes that pad no more than is worth a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from guardrail_training.modeling.passes import parts_by_cost

ROWS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=7)


def cost(parts: Sequence[Sequence[int]], rows: Sequence[tuple[int, int]], *, pass_cost: int) -> int:
    return sum(
        pass_cost
        + len(part) * (max(rows[place][0] for place in part) + max(rows[place][1] for place in part))
        for part in parts
    )


def cuts(places: list[int], *, size: int) -> Iterator[list[list[int]]]:
    """Every way to cut a list into parts of at most ``size``."""
    if not places:
        yield []
    for length in range(1, min(size, len(places)) + 1):
        for rest in cuts(places[length:], size=size):
            yield [places[:length], *rest]


def parts_of(rows: Sequence[tuple[int, int]], *, size: int, pass_cost: int | None) -> list[list[int]]:
    asked, answered = [row[0] for row in rows], [row[1] for row in rows]
    return [part.tolist() for part in parts_by_cost(asked, answered, size=size, pass_cost=pass_cost)]


@given(ROWS, st.integers(1, 4), st.integers(0, 100))
def test_no_other_cut_of_the_rows_by_length_is_cheaper(
    rows: list[tuple[int, int]], size: int, pass_cost: int
) -> None:
    by_length = sorted(range(len(rows)), key=lambda place: sum(rows[place]))

    parts = parts_of(rows, size=size, pass_cost=pass_cost)

    assert [place for part in parts for place in part] == by_length
    assert max(map(len, parts)) <= size
    best = min(cost(cut, rows, pass_cost=pass_cost) for cut in cuts(by_length, size=size))
    assert cost(parts, rows, pass_cost=pass_cost) == best


def test_a_pass_that_costs_nothing_pads_nothing() -> None:
    rows = [(3, 5), (9, 2), (3, 5), (1, 1)]

    parts = parts_of(rows, size=4, pass_cost=0)

    assert cost(parts, rows, pass_cost=0) == sum(map(sum, rows))


def test_without_a_cost_there_are_as_few_parts_as_can_be() -> None:
    parts = parts_of([(5, 5), (1, 1), (9, 9), (2, 2), (3, 3)], size=2, pass_cost=None)

    assert parts == [[1, 3], [4, 0], [2]]


def test_places_are_ids_that_select_rows() -> None:
    (part,) = parts_by_cost([2, 1], size=2, pass_cost=100)

    assert part.dtype == torch.int64
