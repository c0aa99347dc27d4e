"""How texts are grouped into passes of a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guardrail.detectors.windows import buckets

LENGTHS = st.lists(st.integers(2, 256), max_size=200)


@given(LENGTHS)
def test_every_text_is_in_one_bucket_and_buckets_run_from_short_to_long(lengths: list[int]) -> None:
    grouped = list(buckets(lengths))
    assert sorted(index for bucket in grouped for index in bucket) == list(range(len(lengths)))
    in_order = [lengths[index] for bucket in grouped for index in bucket]
    assert in_order == sorted(lengths)


@given(LENGTHS)
def test_no_bucket_pads_to_more_than_the_bound_on_tokens(lengths: list[int]) -> None:
    for bucket in buckets(lengths):
        assert len(bucket) == 1 or len(bucket) * max(lengths[index] for index in bucket) <= 512


def test_a_few_long_texts_do_not_pad_many_short_ones() -> None:
    assert [len(bucket) for bucket in buckets([10] * 50 + [40] * 4)] == [50, 4]


def test_texts_of_nearly_one_length_share_a_pass() -> None:
    assert [len(bucket) for bucket in buckets([10, 11, 12, 10, 11])] == [5]
