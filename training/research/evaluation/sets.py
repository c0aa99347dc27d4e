"""Texts of the sources in the form that judges and detectors are measured on."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["dialogue_turns", "one_style"]

APOSTROPHES = re.compile(r"['\u2019\u2018`]")
NOT_WORDS = re.compile(r"[\W_]+")


def one_style(text: str) -> str:
    """Lower-case words without punctuation: the same for texts that differ in style alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return NOT_WORDS.sub(" ", APOSTROPHES.sub("", folded)).strip()


def dialogue_turns(dialogue: str) -> list[str]:
    """What is said in each line of a DialogSum dialogue (``#Person1#: ...``), without the speaker."""
    return [
        said.strip() for _, colon, said in (line.partition(":") for line in dialogue.split("\n")) if colon
    ]
