"""Events are read the same however their bytes arrive, or not at all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.integrations.openai_server.sse import EventReader, event
from guardrail.integrations.strict_json import MalformedError, parse

PAYLOADS = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1))
BREAKS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def read(chunks: list[bytes], *, limit: int = 1 << 20) -> list[str]:
    reader = EventReader(limit=limit)
    return [payload for chunk in chunks for payload in reader.feed(chunk)] + list(reader.close())


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[start:end] for start, end in pairwise(edges)]


@given(PAYLOADS, BREAKS, st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_events_are_the_same_however_the_bytes_are_cut(
    payloads: list[str], line_break: bytes, places: list[int], begins_with_a_mark: bool
) -> None:
    lines = [b"data: " + payload.encode() + 2 * line_break for payload in payloads]
    content = b"\xef\xbb\xbf" * begins_with_a_mark + b": note" + 2 * line_break + b"".join(lines)
    assert read(cut(content, places)) == payloads


@given(st.text(), st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_written_can_be_read(text: str, places: list[int]) -> None:
    (payload,) = read(cut(event({"text": text}), places))
    assert parse(payload) == {"text": text}


def test_several_lines_of_data_are_one_payload_and_an_open_event_counts_at_the_end() -> None:
    assert read([b"data:one\ndata: two\n\ndata: three"]) == ["one\ntwo", "three"]


@pytest.mark.parametrize("content", [b"data: " + b"x" * 3000, b"data: xxxx\n" * 600])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_an_event_beyond_the_limit_is_refused_before_it_is_whole(content: bytes, size: int) -> None:
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    with pytest.raises(MalformedError, match="too long"):
        read(chunks, limit=2000)
