"""Chunks in, segments with exact offsets out; their texts join back to the input, always.

A segment is about a sentence. It ends at a sentence end, at a line break outside inline code, or at the
length bound. White space between two segments belongs to the later one, so a segment is complete as soon as
the first space after its last mark arrives. What ends a segment never depends on how the text was cut into
chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from guardrail.outcome import Span
from guardrail.text.boundaries import (
    ENDS,
    LINE_BREAKS,
    SENTENCE_RUN,
    Fence,
    IncompleteError,
    closing_fence,
    ends_sentence,
    last_resort,
    lead_end,
    opening_fence,
    run_end,
    trimmed,
)

__all__ = ["Segment", "Segmenter"]

Kind = Literal["prose", "code"]

_EVENT = re.compile(f"[{re.escape(ENDS)}{LINE_BREAKS}`]")
_LINE_BREAK = re.compile(f"[{LINE_BREAKS}]")
_LINE_BREAK_RUN = re.compile(f"[{LINE_BREAKS}]+")
_BACKTICKS = re.compile("`{1,32}")


@dataclass(frozen=True, slots=True)
class Segment:
    """About a sentence of a text.

    ``start`` is the offset of ``text`` in the whole; the next segment starts at ``end``. ``core`` is the part
    of ``text`` that is judged and rewritten, offsets relative to ``text``: white space at both ends and the
    markers that open a line are left out. It is empty if there is nothing to judge. ``kind`` is ``code``
    for the lines of a fenced code block, which are judged and never rewritten.
    """

    start: int
    text: str = field(repr=False)
    core: Span
    kind: Kind

    @property
    def end(self) -> int:
        """Offset of the first character after ``text``."""
        return self.start + len(self.text)

    @property
    def body(self) -> str:
        """The core's characters."""
        return self.text[self.core.start : self.core.end]


class Segmenter:
    """Cuts one text, given in chunks, into segments.

    No segment is longer than ``segment_max`` characters. A core shorter than ``segment_min`` takes what
    follows into its segment, over line breaks too, unless that is a fenced code block, the length bound or
    the end. At most ``segment_max + LOOKAHEAD`` characters are held back, and time is linear in the text for
    any chunking.
    """

    def __init__(self, *, segment_min: int, segment_max: int) -> None:
        self._min = segment_min
        self._max = segment_max
        self._buffer = ""
        self._origin = 0  # offset of the buffer in the whole text
        # All positions below are positions in the buffer.
        self._start = 0  # of the segment being read
        self._scan = 0  # nothing before it needs to be looked at again
        self._line: int | None = 0  # a line start that may still turn out to be a fence
        self._at_line_start = True  # of self._start
        self._lead = 0  # up to here the segment is white space and markers
        self._marks_may_lead = True  # a line started in that lead
        self._backticks = 0  # length of the run that opened the inline code we are in; 0: we are not
        self._kind: Kind = "prose"
        self._fence: Fence | None = None  # the block that begins at, or contains, self._scan
        self._fence_end: int | None = None  # where that block ends, once its closing line was seen

    def feed(self, chunk: str) -> list[Segment]:
        """The segments that are complete now."""
        self._buffer += chunk
        return self._complete(final=False)

    def close(self) -> list[Segment]:
        """The segments that remain at the end of the text, or of a part of it: ``feed`` may follow."""
        return self._complete(final=True)

    def _complete(self, *, final: bool) -> list[Segment]:
        """The segments that are complete; what is behind them stays in the buffer, with ``final`` nothing."""
        segments = []
        try:
            while True:
                cut = self._code_cut(final=final) if self._kind == "code" else self._prose_step(final=final)
                if cut is not None:
                    segments.append(self._take(cut))
        except IncompleteError:
            if final and self._start < len(self._buffer):
                segments.append(self._take(self._read_again_from(len(self._buffer))))
        if gone := self._start:
            self._buffer = self._buffer[gone:]
            self._origin += gone
            self._start = 0
            self._lead -= gone
            self._scan -= gone
            self._line = None if self._line is None else self._line - gone
            self._fence_end = None if self._fence_end is None else self._fence_end - gone
        return segments

    def _take(self, cut: int) -> Segment:
        """The segment from the current start to ``cut``; reading continues behind it."""
        text = self._buffer[self._start : cut]
        if self._kind == "code":
            core = trimmed(text)
        else:  # without the markers that open it
            begin = lead_end(text, 0, len(text), at_line_start=self._at_line_start)
            core = Span(begin, max(begin, len(text.rstrip())))
        segment = Segment(self._origin + self._start, text, core, self._kind)
        self._at_line_start = text[-1] in LINE_BREAKS
        self._marks_may_lead = self._at_line_start
        self._start = self._lead = cut
        self._scan = max(self._scan, cut)
        self._backticks = 0
        self._kind = "code" if self._fence else "prose"
        return segment

    def _prose_step(self, *, final: bool) -> int | None:
        """Looks at the next thing that could end the segment; the cut if it does."""
        if self._line == self._scan:
            fence = opening_fence(self._buffer, self._scan, final=final)
            self._line = None
            if fence:
                return self._enter(fence)
        limit = self._start + self._max
        event = _EVENT.search(self._buffer, self._scan, limit)
        if event is None:
            self._scan = max(self._scan, min(len(self._buffer), limit))
            if len(self._buffer) <= limit:
                raise IncompleteError
            return self._read_again_from(last_resort(self._buffer, self._start, limit))
        at = event.start()
        if event.group() in LINE_BREAKS:
            return self._line_break(at, limit)
        if event.group() == "`":
            self._inline_code(at, final=final)
            return None
        end = run_end(SENTENCE_RUN, self._buffer, at, final=final)
        may_end = end <= limit and not self._backticks and self._is_long_enough(end)
        if may_end and ends_sentence(self._buffer, at, end, start=self._start, final=final):
            return end
        self._scan = end
        return None

    def _enter(self, fence: Fence) -> int | None:
        """Starts a code block: at once if nothing precedes it in this segment, else by a cut before it."""
        line, self._scan, self._fence = self._scan, fence.end, fence
        if self._buffer[self._start : line].strip():
            return line
        self._kind = "code"
        return None

    def _line_break(self, at: int, limit: int) -> int | None:
        previous = self._buffer[at - 1] if at > self._start else ""
        is_second_half = previous == "\r" and self._buffer[at] == "\n"
        if previous and previous in LINE_BREAKS and not is_second_half:
            self._backticks = 0  # inline code ends with its paragraph, closed or not
        if not self._backticks and self._is_long_enough(at):
            return at
        run = None if self._backticks else _LINE_BREAK_RUN.match(self._buffer, at, limit)
        self._scan = self._line = run.end() if run else at + 1
        return None

    def _inline_code(self, at: int, *, final: bool) -> None:
        end = run_end(_BACKTICKS, self._buffer, at, final=final)
        if self._backticks:
            if end - at == self._backticks:
                self._backticks = 0
        elif at == self._start or not self._buffer[at - 1].isalnum():
            self._backticks = end - at
        self._scan = end

    def _is_long_enough(self, end: int) -> bool:
        """True if a core that ended at ``end`` would have ``segment_min`` characters."""
        if end - self._lead < self._min:
            return False
        # One character more, because a marker such as "1." is one only if white space follows.
        lead = lead_end(self._buffer, self._lead, end + 1, at_line_start=self._marks_may_lead)
        self._marks_may_lead |= _LINE_BREAK.search(self._buffer, self._lead, lead) is not None
        self._lead = lead
        return len(self._buffer[lead:end].rstrip()) >= self._min

    def _read_again_from(self, cut: int) -> int:
        self._scan = cut
        self._line = cut if self._buffer[cut - 1] in LINE_BREAKS else None
        return cut

    def _code_cut(self, *, final: bool) -> int:
        """The end of the code block, or of as many of its lines as fit."""
        limit = self._start + self._max
        while self._fence_end is None:
            if self._line == self._scan and self._fence:
                self._fence_end = closing_fence(self._buffer, self._scan, self._fence, final=final)
                self._line = None
                continue
            line_break = _LINE_BREAK.search(self._buffer, self._scan, limit)
            if line_break is None:
                self._scan = max(self._scan, min(len(self._buffer), limit))
                return self._code_bound_cut(limit)
            self._scan = self._line = line_break.end()
        if self._fence_end > limit:
            return self._code_bound_cut(limit)
        self._scan, self._fence, self._fence_end = self._fence_end, None, None
        return self._scan

    def _code_bound_cut(self, limit: int) -> int:
        if len(self._buffer) <= limit:
            raise IncompleteError
        breaks = [self._buffer.rfind(mark, self._start + 1, limit + 1) for mark in "\n\r"]
        cut = max(breaks)
        if cut > self._start + 1 and self._buffer[cut - 1 : cut + 1] == "\r\n":
            cut -= 1
        if cut < 0:
            cut = last_resort(self._buffer, self._start, limit)
        return self._read_again_from(cut)
