"""A model's tokenizer without transformers: from ``tokenizer.json``, or from what a GGUF file says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from guardrail.errors import ModelFileError
from guardrail.models.files import mapped, read_object
from guardrail.models.gguf import parse_gguf

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer", "byte_level", "read_tokenizer"]

FILENAME = "tokenizer.json"
CONTROL = 3
"""The type that ggml gives to a token which no text stands for."""
GPT2_SPLITS = frozenset({"default", "gpt-2", "smollm"})
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen2 takes for a word: each digit is one, a mark may stand before letters."""
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")


class Tokenizer:
    """Text to ids and back; safe to use from several threads.

    ``control`` are the ids of all control tokens: none of them can be part of a text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, named: Iterable[str] = ()) -> None:
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        known = {token_id for token_id, token in added.items() if token.special}
        ids = (backend.token_to_id(token) for token in named)
        self.control = frozenset(known | {token_id for token_id in ids if token_id is not None})
        self._backend = backend
        self._lock = Lock()  # how the backend treats control tokens is a setting of the whole

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Ids of a text; with ``split_special_tokens`` control tokens in it are characters like others."""
        with self._lock:
            self._backend.encode_special_tokens = split_special_tokens
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        with self._lock:
            return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a base folder: its ``tokenizer.json``, else that of its GGUF file.

    Raises ModelFileError if there is neither, or one that is not usable.
    """
    folder = Path(folder)
    if (folder / FILENAME).is_file():
        return _from_json(folder)
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise ModelFileError(f"{folder} has no {FILENAME}: transformers' save_pretrained writes one")
    metadata = parse_gguf(mapped(found[0]), where=str(found[0])).metadata
    return Tokenizer(byte_level(metadata, where=found[0]))


def _from_json(folder: Path) -> Tokenizer:
    import tokenizers

    try:
        backend = tokenizers.Tokenizer.from_file(str(folder / FILENAME))
    except Exception as error:  # the library raises nothing narrower
        raise ModelFileError(f"{folder / FILENAME} is not a tokenizer: {error}") from error
    return Tokenizer(backend, named=list(_named(folder)))


def _named(folder: Path) -> Iterator[str]:
    """The control tokens that the files next to a tokenizer name."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            content = read_object(folder / name)
            listed = [token for key in _LISTED for token in content.get(key) or ()]
            for token in [*(content.get(key) for key in _NAMED), *listed]:
                text = token.get("content") if isinstance(token, dict) else token
                if isinstance(text, str):
                    yield text


def byte_level(metadata: Mapping[str, Any], *, where: Path) -> tokenizers.Tokenizer:
    """The byte-level BPE that a GGUF file's metadata describe, as transformers converts it.

    Text is split as GPT-2 splits it, digits not apart, or as Qwen2 does: what adapters are trained with.
    Raises ModelFileError for a tokenizer of another kind or with another way of splitting.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split not in {*GPT2_SPLITS, "qwen2"}:
        raise ModelFileError(
            f"{where} has a tokenizer of kind {kind!r} that splits like {split!r}, which is not read from "
            f"GGUF: put the model's {FILENAME} next to it"
        )
    try:
        tokens: list[str] = list(metadata["tokenizer.ggml.tokens"])
        merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
        kinds = metadata["tokenizer.ggml.token_type"]
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
        vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
        backend = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises nothing narrower
        raise ModelFileError(f"{where} describes no usable tokenizer ({error!r:.200})") from error
    if split == "qwen2":
        words = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return backend
