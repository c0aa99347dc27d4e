"""The model of letters: what it counts, and the file that it becomes."""

from __future__ import annotations

import string

from research.detection.letters_build import LETTERS, build_letters, letters_text, word_weights


def cost(rows: dict[str, str], triple: str) -> int:
    return int(rows[triple[:2]]["abcdefghijklmnopqrstuvwxyz_".index(triple[2])], 36)


def test_a_letter_that_often_follows_is_cheaper_than_one_that_never_does() -> None:
    rows = build_letters({"the": 10.0, "then": 5.0, "cat": 1.0})
    assert cost(rows, "the") < cost(rows, "tha") < cost(rows, "thq") + 1
    assert cost(rows, "__t") < cost(rows, "__c")


def test_a_heavier_word_is_cheaper() -> None:
    light, heavy = build_letters({"the": 10.0, "cat": 1.0}), build_letters({"the": 10.0, "cat": 50.0})
    assert cost(heavy, "__c") < cost(light, "__c")


def test_the_shipped_file_is_of_the_form_that_the_build_writes() -> None:
    rows = build_letters(word_weights())
    shipped = LETTERS.read_text(encoding="ascii").splitlines()
    built = letters_text(rows).splitlines()
    assert shipped[0] == built[0] == string.ascii_lowercase + "_"
    assert [line[:3] for line in shipped] == [line[:3] for line in built]
    assert {len(line) for line in shipped[1:]} == {30}
