"""Adapters of other methods that the rewriting table puts alongside the one that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail import models
from guardrail.errors import ConfigError, ModelFileError
from guardrail.manifest import Manifest
from guardrail.rewriters.adapter import read_adapter
from guardrail_training.evaluation.systems import ROWS

__all__ = ["Method", "check_methods", "read_methods"]


@dataclass(frozen=True, slots=True)
class Method:
    """What the tables call a method, and the folder of an adapter that it made."""

    name: str
    folder: Path


def read_methods(also: Sequence[str], *, known: str) -> tuple[Method, ...]:
    """Methods from ``NAME=FOLDER``, in their order; ``known`` is the name of one more that they stand beside.

    Raises ConfigError for an entry without name or folder, and for a name that another row has.
    """
    taken, found = {*ROWS, known}, []
    for entry in also:
        name, _, folder = (part.strip() for part in entry.partition("="))
        if not name or not folder:
            raise ConfigError(f"also needs NAME=FOLDER, got {entry!r}")
        if name in taken:
            raise ConfigError(f"also: another row is called {name!r}; choose another name for {entry!r}")
        taken.add(name)
        found.append(Method(name=name, folder=Path(folder)))
    return tuple(found)


def check_methods(methods: Iterable[Method], *, base: str | Path) -> None:
    """Raises ConfigError unless every folder holds an intact adapter for the base; opens no model.

    ``base`` is the folder of a model or its known name.
    """
    identity = Manifest.load(models.require(base), verify=False).trained_on
    for method in methods:
        where = f"also: {method.name}={method.folder}"
        if not method.folder.is_dir():
            raise ConfigError(f"{where}: no such folder; give an adapter's, such as step-N of a run")
        try:
            read_adapter(method.folder).manifest.check_base(str(identity))
        except ModelFileError as error:
            raise ConfigError(f"{where}: {error}") from error
