"""What an acceptance sheet is made of, and what is read back."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError

__all__ = ["AcceptanceSettings", "SystemPlace"]


@dataclass(frozen=True, slots=True)
class SystemPlace:
    """A system's name, and the file or folder that it is in; an empty place is the guard itself."""

    name: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceSettings:
    """Which systems are read on which sentences, or which ratings are read back.

    To write a sheet:
    systems       NAME=PLACE of each: an adapter's folder (with what ``config`` says of the rest), a
                  configuration file (.toml) of a guard, a JSON Lines file (.jsonl) of rows with source,
                  output and, unless all were rewritten, action; what evaluate generation sampled, as
                  RUN/samples.jsonl#MODEL with zero-shot, start or trained; NAME= is the guard of ``config``
    task          what is read: rewrite, or summary, which has a rule of its own at the top of the sheet
    texts, field  file below ``data`` and its field with the sources, in place of the two sets; empty: these
    limit         so many of them, drawn by the seed; 0: all
    config        configuration file of the guard that adapters are put into; empty: default models and policy
    data          folder with everyday/dev.jsonl and paradetox/dev.jsonl; GUARDRAIL_DATA if empty
    everyday, paradetox, register    so many sentences of the two sets and of each register of everyday; all
                  that there are if there are fewer, 0: none
    seed          of the sentences, the order of the sheet, and the intervals
    sheet         the sheet in ``out``: .csv or .jsonl

    To read ratings:
    ratings       two filled copies of the sheet
    settled       filled sheet of a third reader for the rows in which the two differ; empty: such a row is
                  accepted by no system, and a blank sheet of them is written
    key           the sheet's key; empty: the .key.json in ``out``

    out           folder of sheet, key and figures
    """

    systems: tuple[str, ...] = ()
    task: str = "rewrite"
    texts: str = ""
    field: str = ""
    limit: int = 0
    config: str = ""
    data: str = ""
    everyday: int = 200
    paradetox: int = 200
    register: int = 60
    seed: int = 13
    sheet: str = "acceptance.csv"
    ratings: tuple[str, ...] = ()
    settled: str = ""
    key: str = ""
    out: str = "runs/acceptance"

    def __post_init__(self) -> None:
        if bool(self.systems) == bool(self.ratings):
            raise ConfigError(
                "evaluate acceptance needs one of systems, to write a sheet, and ratings, to read it back"
            )
        if self.ratings and len(self.ratings) != 2:
            raise ConfigError(
                f"ratings must name two filled copies of the sheet, got {len(self.ratings)}; a third "
                "reader's is named in settled"
            )
        if min(self.everyday, self.paradetox, self.register, self.limit) < 0:
            raise ConfigError("everyday, paradetox, register and limit must be 0 or more")
        if self.task not in ("rewrite", "summary"):
            raise ConfigError(f"task must be one of rewrite, summary, got {self.task!r}")
        if bool(self.texts) != bool(self.field):
            raise ConfigError("texts and field go together: a file and its field with the sources")
        if not self.sheet.endswith((".csv", ".jsonl")):
            raise ConfigError(f"sheet must end with .csv or .jsonl, got {self.sheet!r}")
        names = [place.name for place in self.places]
        if len(set(names)) < len(names):
            raise ConfigError("two systems have the same name")

    @property
    def places(self) -> tuple[SystemPlace, ...]:
        """The systems with the places that they are in."""
        found = []
        for entry in self.systems:
            name, equals, place = (part.strip() for part in entry.partition("="))
            if not name or not equals:
                raise ConfigError(f"systems needs NAME=PLACE, got {entry!r}")
            found.append(SystemPlace(name, place))
        return tuple(found)
