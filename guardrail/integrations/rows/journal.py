"""How far a job has come, on disk: what an interrupted one needs to go on without loss or repetition."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail.integrations.rows.record import Position
from guardrail.outcome import Action, Outcome

__all__ = ["Counts", "Journal"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows came to what; ``bad`` ones could not be judged, ``degraded`` is counted beside."""

    actions: Mapping[str, int] = field(default_factory=lambda: {str(action): 0 for action in Action})
    degraded: int = 0
    bad: int = 0

    @property
    def judged(self) -> int:
        """Rows whose text was judged."""
        return sum(self.actions.values())

    def plus(self, outcomes: Iterable[Outcome], *, bad: int) -> Counts:
        """The counts with more rows."""
        actions, degraded = dict(self.actions), self.degraded
        for outcome in outcomes:
            actions[str(outcome.action)] = actions.get(str(outcome.action), 0) + 1
            degraded += bool(outcome.degraded)
        return Counts(actions, degraded, self.bad + bad)


@dataclass(frozen=True, slots=True)
class Journal:
    """A moment at which all that was read up to ``source`` is in the outputs up to ``target`` and ``bad``.

    ``job`` is what the outcome depends on: a job that differs in it is another one. ``key`` names the job in
    an audit. Positions in the outputs are sizes in bytes.
    """

    job: Mapping[str, Any]
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    source: Position = field(default_factory=Position)
    target: int = 0
    bad: int = 0
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """The journal of an interrupted job, None where there is none; UsageError for another version's."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                **{**content, "source": Position(**content["source"]), "counts": Counts(**content["counts"])}
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is no journal of this version; --overwrite begins anew") from error

    def write(self, path: Path) -> None:
        """Puts this moment in the place of the last one, at once and for good."""
        new = path.with_name(f"{path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def at(self, source: Position, *, target: int, bad: int, counts: Counts) -> Journal:
        """The same job, further on."""
        return replace(self, source=source, target=target, bad=bad, counts=counts)

    def require_same(self, job: Mapping[str, Any]) -> None:
        """UsageError, naming what differs, unless this is the journal of that job."""
        # Through JSON, as the journal itself went: tuples come back as lists.
        now = json.loads(json.dumps(job))
        differing = sorted(key for key in {*now, *self.job} if now.get(key) != self.job.get(key))
        if differing:
            raise UsageError(
                f"an interrupted job is to be continued, but its {', '.join(differing)} differed: "
                "call it as before, or begin anew with --overwrite"
            )
