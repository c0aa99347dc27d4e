"""Files that are not the lines of text that somebody takes them for, told by how they begin."""

from __future__ import annotations

import json
from collections.abc import Mapping

from guardrail.errors import UsageError

__all__ = ["BOM", "require_rows", "require_text"]

BOM = b"\xef\xbb\xbf"
UTF_8 = "save it as UTF-8 (in a spreadsheet: CSV UTF-8), or convert it: iconv -f {0} -t UTF-8 IN > OUT"
KINDS: Mapping[bytes, str] = {
    b"\xff\xfe\0\0": "UTF-32: " + UTF_8.format("UTF-32"),
    b"\0\0\xfe\xff": "UTF-32: " + UTF_8.format("UTF-32"),
    b"\xff\xfe": "UTF-16: " + UTF_8.format("UTF-16"),
    b"\xfe\xff": "UTF-16: " + UTF_8.format("UTF-16"),
    b"\x1f\x8b": "compressed with gzip: let its name end in .gz, or pipe it through gunzip -c",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: let its name end in .zst, or pipe it through zstd -dc",
    b"PAR1": "a Parquet file: let its name end in .parquet, or say --format parquet",
    b"ARROW1": "an Arrow file: let its name end in .arrow, or say --format arrow",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another office document: save the sheet as CSV UTF-8",
    b"BZh": "compressed with bzip2: pipe it through bzcat",
    b"\xfd7zXZ\0": "compressed with xz: pipe it through xzcat",
}


def require_text(beginning: bytes) -> None:
    """UsageError, which names the cure, if a file that begins like this is no text in UTF-8."""
    for magic, cure in KINDS.items():
        if beginning.startswith(magic):
            raise UsageError(f"the input is {cure}")
    if b"\0" in beginning[:2]:  # a Latin letter in UTF-16 that has no byte order mark
        name = "UTF-16BE" if beginning.startswith(b"\0") else "UTF-16LE"
        raise UsageError(f"the input is UTF-16, or no text: {UTF_8.format(name)}")


def require_rows(line: bytes) -> None:
    """UsageError, which names the cure, if this first line of a file cannot be that of JSON Lines."""
    require_text(line)
    content = line.removeprefix(BOM).strip()
    if content == b"{":
        raise UsageError("the input is JSON over several lines, not JSON Lines: jq -c . IN > OUT makes it so")
    if content.startswith(b"[") and not _is_row(content):
        raise UsageError("the input is a JSON array, not JSON Lines: jq -c '.[]' IN > OUT makes it so")


def _is_row(content: bytes) -> bool:
    """True for a list without objects in it, alone on its line: a bad row, and others may follow."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return not any(isinstance(element, dict) for element in row)
