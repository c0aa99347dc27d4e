"""The file next to a model that says what it is, and the prompt template that training and serving share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from guardrail.errors import ManifestError

__all__ = ["FILENAME", "Encoder", "Manifest", "Template", "is_number", "sha256_of"]

FILENAME = "manifest.json"
KINDS = ("adapter", "base", "detector", "table", "tagger", "verifier")


class Encoder(Protocol):
    """The part of a transformers tokenizer that a template needs."""

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt literal with exactly one ``{text}``.

    The text is data: it is encoded apart from the literal with special tokens split into ordinary pieces, and
    the three parts are joined as ids. Nothing is ever formatted, so braces in either are harmless.
    """

    literal: str

    def __post_init__(self) -> None:
        if self.literal.count("{text}") != 1:
            raise ManifestError(
                f"a template needs exactly one {{text}}, this one has {self.literal.count('{text}')}"
            )

    def encode(self, tokenizer: Encoder, text: str) -> list[int]:
        """Token ids of the prompt for one text, control tokens only from the literal."""
        head, _, tail = self.literal.partition("{text}")
        return [
            *tokenizer.encode(head, add_special_tokens=False, split_special_tokens=False),
            *tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True),
            *tokenizer.encode(tail, add_special_tokens=False, split_special_tokens=False),
        ]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder with a model, adapter or table contains.

    ``files`` maps file names to sha256 (hex). ``trained_on`` is the sha256 of the base's weight file;
    ``compatible_bases`` maps further sha256 to ``measured`` or ``not measured``. ``calibration`` maps labels
    to ``{"a": float, "b": float}``: a score is ``sigmoid(a * logit + b)``. ``scripts`` are Unicode script
    names, ``languages`` ISO 639-1 codes (none named: a text in any language counts as readable).
    ``temperature`` is that at which ``rewrite`` samples from an adapter, more than 0; None: 1. A guard's
    candidates are not sampled.
    """

    kind: str
    name: str
    version: str
    licence: str
    files: Mapping[str, str]
    trained_on: str | None = None
    compatible_bases: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    temperature: float | None = None
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scripts: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    git: str | None = None

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True) -> Manifest:
        """The manifest of a folder; with ``verify`` every listed file is hashed before anyone opens it.

        Raises ManifestError if it is missing, malformed, or a listed file is absent or altered.
        """
        path = Path(folder) / FILENAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ManifestError(
                f"no {FILENAME} in {folder}: not a model folder, or an incomplete copy"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ManifestError(f"{path} is not valid JSON; fetch the model again") from error
        manifest = cls.parse(content, where=str(path))
        if verify:
            manifest.verify(folder)
        return manifest

    @classmethod
    def parse(cls, content: object, *, where: str) -> Manifest:
        """A manifest from decoded JSON; unknown or missing keys and a wrong kind are errors naming them."""
        if not isinstance(content, dict):
            raise ManifestError(f"{where}: expected a JSON object, got {type(content).__name__}")
        unknown = sorted(set(content) - {f.name for f in fields(cls)})
        missing = sorted({"kind", "name", "version", "licence", "files"} - set(content))
        if unknown or missing:
            raise ManifestError(f"{where}: unknown keys {unknown}, missing keys {missing}")
        if content["kind"] not in KINDS:
            raise ManifestError(f"{where}: kind must be one of {KINDS}, got {content['kind']!r}")
        if not isinstance(content["files"], dict):
            raise ManifestError(f"{where}: files must map names to sha256")
        bad = [name for name in content["files"] if Path(name).name != name]
        if bad:
            raise ManifestError(f"{where}: file names must not contain folders: {bad}")
        unhashed = [name for name, sha256 in content["files"].items() if not _is_sha256(sha256)]
        if unhashed:
            raise ManifestError(f"{where}: these files have no sha256 of 64 hexadecimal digits: {unhashed}")
        temperature = content.get("temperature")
        if temperature is not None and not (is_number(temperature, 0, math.inf) and temperature > 0):
            raise ManifestError(f"{where}: temperature must be a number above 0 or null, got {temperature!r}")
        names = ("labels", "scripts", "languages", "data")
        lists = {name: tuple(content[name]) for name in names if name in content}
        return cls(**{**content, **lists})

    def verify(self, folder: str | Path, *, digest: Callable[[Path], str | None] | None = None) -> None:
        """Raises ManifestError unless every listed file is there with its sha256.

        ``digest`` replaces the hashing of a file, for callers that remember hashes; None skips a file.
        """
        for name, expected in self.files.items():
            path = Path(folder) / name
            if not path.is_file():
                raise ManifestError(
                    f"{path} is listed in its manifest but missing; fetch or reinstall the model"
                )
            actual = (digest or sha256_of)(path)
            if actual is not None and actual != expected:
                raise ManifestError(
                    f"{path} has sha256 {actual[:16]}..., its manifest says {expected[:16]}...: "
                    "the file was altered or cut short; run 'guardrail models verify' and fetch it again"
                )

    def save(self, folder: str | Path) -> Path:
        """Writes the manifest next to its files and returns its path."""
        path = Path(folder) / FILENAME
        path.write_bytes(self._written())
        return path

    def digest(self) -> str:
        """The sha256 of the file that ``save`` writes, hex; it pins the model, whose hashes are in there."""
        return hashlib.sha256(self._written()).hexdigest()

    def _written(self) -> bytes:
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        return f"{json.dumps(content, indent=1, default=dict)}\n".encode()

    def check_base(self, sha256: str) -> None:
        """Raises ManifestError unless the adapter was trained on this base or declares it compatible."""
        if sha256 != self.trained_on and sha256 not in self.compatible_bases:
            raise ManifestError(
                f"adapter {self.name!r} was trained on base {str(self.trained_on)[:16]}..., "
                f"not on {sha256[:16]}...; fetch its base with 'guardrail models pull', "
                "or train an adapter for this one"
            )


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_number(value: object, least: float, most: float) -> bool:
    """Whether a value from a manifest is a finite number in ``least..most``; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and least <= value <= most


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, hex, read in pieces."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
