"""A tokenizer as a rewriter needs it, on the tokenizers library alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from guardrail.errors import ModelFileError

__all__ = ["Tokens"]

FILENAME = "tokenizer.json"


class Tokens:
    """The tokenizer of a base folder; threads may share it.

    ``control`` are the ids of all control tokens: none of them can be part of a rewrite, so each ends one.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / FILENAME
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ModelFileError(f"{path} is not a tokenizer; fetch the model again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lock = Lock()
        added = self._tokenizer.get_added_tokens_decoder()
        self.control = frozenset(number for number, token in added.items() if token.special)

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Token ids; with ``split_special_tokens`` a control token in the text is ordinary text."""
        with self._lock:  # the switch belongs to the tokenizer, not to the call
            self._tokenizer.encode_special_tokens = split_special_tokens
            encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
