"""How well a detector does on a source that it never read: trained without it, tested on its dev part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import UsageError
from guardrail.outcome import LABELS
from guardrail_training.detection.dev_sets import LabelledSet, labelled_sets
from guardrail_training.metrics.statistics import Ranking, ranking

__all__ = ["WITHOUT", "CrossSource", "cross_source", "toxicity_logits"]

WITHOUT: Mapping[str, str] = {
    "paradetox": "paradetox, one style",
    "davidson": "davidson",
    "stormfront": "stormfront",
}
"""The sources that are left out one at a time, each with the dev set that it is tested on."""

BATCH = 64
MOST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class CrossSource:
    """Ranking for ``toxicity`` of a source's dev texts by a detector trained without that source."""

    without: str
    tested_on: str
    texts: int
    ranking: Ranking


def cross_source(
    *, base: str | Path, data: Path, out: str | Path, texts: int, seed: int, threads: int
) -> list[CrossSource]:
    """Trains once per left-out source, one pass over ``texts`` texts, and tests on that source's dev part."""
    from guardrail_training.detection.batches import load_tokenizer
    from guardrail_training.detection.detector import DetectorSettings, train
    from guardrail_training.detection.dev_sets import dev_texts
    from guardrail_training.detection.mixture import ROWS

    sets = {each.source: each for each in labelled_sets(dev_texts(data)) if each.label == "toxicity"}
    if missing := sorted(set(WITHOUT.values()) - set(sets)):
        raise UsageError(f"the data folder has no dev set with both sides for {', '.join(missing)}")
    found = []
    for source, tested_on in WITHOUT.items():
        kept = sum(count for name, count in ROWS.items() if not name.startswith(source))
        settings = DetectorSettings(
            base=str(base),
            out=str(Path(out) / f"without-{source}"),
            data=str(data),
            seed=seed,
            share=min(1.0, texts / kept),
            last_share=0.0,
            without=source,
            threads=threads,
            export=False,
        )
        scores = toxicity_logits(train(settings), load_tokenizer(base), sets[tested_on].texts)
        found.append(_result(source, sets[tested_on], scores, texts=texts))
    return found


def _result(source: str, tested: LabelledSet, scores: Sequence[float], *, texts: int) -> CrossSource:
    return CrossSource(source, tested.source, texts, ranking(tested.positive, scores))


@torch.inference_mode()
def toxicity_logits(network: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """One logit per text, in input order; uncalibrated, since calibration does not change a ranking."""
    network.eval()
    place = LABELS.index("toxicity")
    encodings = [encoding.ids[:MOST_TOKENS] for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(texts)), key=lambda row: len(encodings[row]))
    scores = [0.0] * len(texts)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = max(len(encodings[row]) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)  # (batch, time)
        mask = torch.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(encodings[row])] = torch.tensor(encodings[row])
            mask[line, : len(encodings[row])] = 1
        logits = network(ids, mask).logits[:, place]
        for row, score in zip(rows, logits.tolist(), strict=True):
            scores[row] = score
    return scores
