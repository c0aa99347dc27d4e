"""How well a detector does on a source that it never read: trained without it, tested on its dev part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import UsageError
from guardrail_training.metrics.statistics import Ranking, ranking

__all__ = ["CrossSource", "cross_source"]


@dataclass(frozen=True, slots=True)
class CrossSource:
    """Ranking of a source's dev texts for ``label`` by a detector trained without that source."""

    without: str
    tested_on: str
    label: str
    texts: int
    ranking: Ranking


def cross_source(
    *, base: str | Path, data: Path, out: str | Path, texts: int, seed: int, threads: int
) -> list[CrossSource]:
    """Trains once per left-out source, one pass over ``texts`` texts, and tests on that source's dev part.

    Raises UsageError if the folder has no source to leave out.
    """
    from research.detection.detector import DetectorSettings, train
    from research.detection.dev_tasks import TASKS, dev_tasks
    from research.detection.labelled import TRAINED
    from research.detection.mixture import GROUPS, ROWS
    from research.detection.soft_scores import score_texts

    sources = {name: source for source, name in TASKS}
    tasks = [task for task in dev_tasks(data) if (data / sources[task.source] / "train.jsonl").is_file()]
    if not tasks:
        raise UsageError(f"{data} has no source with train and dev parts to leave out")
    rows = sum(ROWS.values()) + 3 * sum(GROUPS.values())
    found = []
    for task in tasks:
        source = sources[task.source]
        settings = DetectorSettings(
            base=str(base),
            out=str(Path(out) / f"without-{source}"),
            data=str(data),
            seed=seed,
            share=min(1.0, texts / rows),
            last_share=0.0,
            without=source,
            threads=threads,
            export=False,
        )
        scores = score_texts(train(settings).eval(), base, task.texts)[:, TRAINED.index(task.label)]
        found.append(
            CrossSource(source, task.source, task.label, texts, ranking(task.positive, scores.tolist()))
        )
    return found
