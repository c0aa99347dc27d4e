"""Weights & Biases, MLflow and the other trackers of accelerate, which receive a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError, MissingExtraError
from guardrail_training.callbacks import Callback

__all__ = ["Trackers"]


class Trackers(Callback):
    """Trackers by their names in accelerate; each keeps its own files, where and how it is set up to.

    Raises ConfigError for a name that accelerate does not know or whose package is not installed.
    """

    def __init__(self, names: Sequence[str], *, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            from accelerate import PartialState
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
        except ImportError as error:
            raise MissingExtraError(feature="track", extra="train") from error
        usable = sorted(str(name) for name in get_available_trackers())
        if missing := sorted(set(names) - set(usable)):
            raise ConfigError(
                f"track: {', '.join(missing)} is not installed or not known to accelerate; here are "
                f"{', '.join(usable) or 'none'}"
            )
        PartialState()  # trackers ask it whether this is the first process
        plain = {
            key: value if isinstance(value, (int, float)) else str(value) for key, value in settings.items()
        }
        self._trackers = []
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            places = (str(folder / name),) if kind.requires_logging_directory else ()
            tracker = kind(folder.name, *places)
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration(plain)
            self._trackers.append(tracker)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(dict(metrics), step=step)

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        self.on_step(step, metrics)

    def on_end(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
