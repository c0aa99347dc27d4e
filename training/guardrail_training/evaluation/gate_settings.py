"""What the gate between two adapters depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training.settings import DATA, MODEL, OUTPUT, setting

__all__ = ["GateSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """Which adapters are compared, on what."""

    adapter: str = setting("", "Folder of the new adapter.", group=MODEL)
    current: str = setting("", "Folder of the one in use; else the shipped one.", group=MODEL)
    base: str = setting(
        "smollm2-135m-instruct", "Base of both: a name in 'guardrail models list', or a folder.", group=MODEL
    )
    dev: str = setting("", "File of sentences: JSON Lines, CSV, TSV, Parquet or Arrow.", group=DATA)
    source: str = setting("toxic", "Its field with the sentence.", group=DATA)
    limit: int = setting(0, "Only the first so many sentences; 0: all.", group=DATA, min=0)
    out: str = setting("", "Folder that receives the figures; else the adapter's.", group=OUTPUT)
    seed: int = setting(13, "Of the intervals.", group=OUTPUT)

    def __post_init__(self) -> None:
        for name in ("adapter", "dev"):
            if not getattr(self, name):
                raise ConfigError(f"gate needs --{name}")
