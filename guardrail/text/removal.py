"""What stands in a sentence's place when it is removed: the policy's text, in markup that stays whole.

List, quote and heading markers, HTML tags, table bars, and emphasis or brackets that close in another
sentence are kept; all else goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from guardrail.text.boundaries import LINE_BREAKS, lead_end

__all__ = ["TAG", "removed", "removed_code"]

TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]{0,2000})?/?>|<!--[^<>]{0,2000}-->")
"""An HTML tag or comment."""
_TAG_NAME = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*")
_MARK = re.compile(
    rf"(?P<tag>{TAG.pattern})"
    r"|(?P<link>\]\([^()\s]{0,2000}\)|\]\[[^\]\s]{0,200}\])"
    r"|(?P<bracket>[\[\]()])"
    r"|(?P<emphasis>\*{1,3}|(?<![^\W_])_{1,3}|_{1,3}(?![^\W_])|~~)"
    r"|(?P<bar>\|)"
)
_LINE = re.compile(f"[^{LINE_BREAKS}]+|[{LINE_BREAKS}]+")
_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})[^`\r\n]*")

Side = Literal["opens", "closes", "stays"]


@dataclass(slots=True)
class _Mark:
    text: str
    kind: str
    side: Side
    partner: _Mark | None = None  # what closes it, or what it closes, in the same line


def removed(body: str, *, by: str) -> str:
    """The text ``by`` in place of all that a sentence says, once for each of its lines that say something."""
    lines = []
    at_line_start = True  # a body begins behind its own markers, or with its text
    for match in _LINE.finditer(body):
        line = match.group()
        if line[0] in LINE_BREAKS:
            lines.append(line)
            at_line_start = True
            continue
        lead = lead_end(line, 0, len(line), at_line_start=at_line_start)
        is_row = line.lstrip().startswith("|")
        lead = 0 if is_row else lead
        lines.append(line[:lead] + _line_removed(line[lead:], by=by, is_row=is_row))
    return "".join(lines)


def removed_code(body: str, *, by: str) -> str:
    """The text ``by`` in place of the lines of a code block, between the fences that are in the body."""
    lines = body.splitlines(keepends=True)
    first = lines[0] if lines and _FENCE.fullmatch(lines[0].rstrip("\r\n")) else ""
    last = lines[-1] if len(lines) > 1 and _FENCE.fullmatch(lines[-1].rstrip("\r\n")) else ""
    ending = "\n" if last else ""
    return f"{first}{by}{ending}{last}"


def _line_removed(line: str, *, by: str, is_row: bool) -> str:
    if not any(character.isalnum() for character in line):
        return line
    marks = list(_marks(line))
    _pair(marks)
    kept = [mark for mark in marks if _is_kept(mark, is_row=is_row)]
    if is_row:
        return _row(kept, by=by)
    # Pairs stand inside what opens or closes in another line, the first one outermost.
    pairs = [(mark, mark.partner) for mark in kept if mark.side == "opens" and mark.partner]
    alone = [mark for mark in kept if not mark.partner]
    return "".join(
        (
            *(mark.text for mark in alone if mark.side == "opens"),
            *(opening.text for opening, _ in pairs),
            by,
            *(closing.text for _, closing in reversed(pairs)),
            *(mark.text for mark in alone if mark.side != "opens"),
        )
    )


def _row(marks: list[_Mark], *, by: str) -> str:
    """A row of a table keeps its bars, so that it has as many cells as before."""
    pieces, said = [], False
    for mark in marks:
        pieces.append(mark.text)
        if mark.kind == "bar" and not said:
            pieces.append(f" {by} ")
            said = True
    return "".join(pieces)


def _is_kept(mark: _Mark, *, is_row: bool) -> bool:
    if mark.kind == "bar":
        return is_row
    return not mark.partner or mark.kind == "tag"


def _marks(line: str) -> Iterator[_Mark]:
    for match in _MARK.finditer(line):
        text, kind = match.group(), match.lastgroup or ""
        before, after = line[match.start() - 1 : match.start()], line[match.end() : match.end() + 1]
        if kind == "tag":
            name = _TAG_NAME.match(text)
            if name is None:
                continue  # a comment
            side: Side = "closes" if text[1] == "/" else "opens"
            # Attributes may hold what was removed.
            yield _Mark(name.group() + ("/>" if text.endswith("/>") else ">"), kind, side)
        elif kind == "link":
            yield _Mark("](#)", "bracket", "closes")  # the address may be what was removed
        elif kind == "bracket":
            yield _Mark(text, kind, "opens" if text in "[(" else "closes")
        elif kind == "bar":
            yield _Mark(text, kind, "stays")
        elif before.isalnum() and after.isalnum():
            continue  # f**k
        elif (
            after
            and not after.isspace()
            and (not before or not before.isalnum())
            and not (before and before in ".,!?;:)")
        ):
            yield _Mark(text, kind, "opens")
        elif before and not before.isspace():
            yield _Mark(text, kind, "closes")


def _pair(marks: list[_Mark]) -> None:
    """Notes which marks open and close within the line."""
    open_marks: list[_Mark] = []
    for mark in marks:
        if mark.side == "opens":
            open_marks.append(mark)
        elif mark.side == "closes":
            for i in range(len(open_marks) - 1, -1, -1):
                if _closes(open_marks[i], mark):
                    open_marks[i].partner, mark.partner = mark, open_marks[i]
                    del open_marks[i]
                    break


def _closes(opening: _Mark, closing: _Mark) -> bool:
    if opening.kind != closing.kind:
        return False
    if opening.kind == "emphasis":
        return opening.text == closing.text
    if opening.kind == "tag":
        return opening.text[1:] == closing.text[2:]
    return (opening.text == "[") == closing.text.startswith("]")
