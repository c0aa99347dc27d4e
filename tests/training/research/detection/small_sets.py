"""Small labelled texts, and a detector that knows two words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.outcome import Verdict
from research.detection.corpora import CLEAN, Labelled, soft


def labelled(text: str, source: str, number: int, *, toxic: float | None) -> Labelled:
    labels = CLEAN if toxic == 0.0 else soft(toxicity=toxic)
    return Labelled(text, labels, source, f"{source}:{number}", None)


TEXTS = {
    "paradetox": [
        Labelled(text, soft(toxicity=share) if share else CLEAN, source, f"row:{number}", None)
        for number in range(8)
        for text, share, source in (
            (f"You oaf, number {number}!", 1.0, "paradetox_toxic"),
            (f"You person, number {number}!", 0.0, "paradetox_neutral"),
        )
    ],
    "stormfront": [
        *(labelled(f"hateful words {number}", "stormfront_hate", number, toxic=1.0) for number in range(6)),
        *(
            labelled(f"Muslims met on day {number}", "stormfront_nohate", number, toxic=0.0)
            for number in range(3)
        ),
        *(
            labelled(f"rain fell on day {number}", "stormfront_nohate", number, toxic=0.0)
            for number in range(4)
        ),
    ],
    "toxigen_statements": [labelled("they sing well", "toxigen_neutral", 1, toxic=0.0)],
}


class Spotter:
    """A detector that knows two words and embeds by letters."""

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        hits = [any(word in text.lower() for word in ("oaf", "hateful")) for text in texts]
        return [Verdict(scores={"toxicity": 0.9 if hit else 0.1}, flagged=hit) for hit in hits]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = [[1e-3, *(text.lower().count(letter) for letter in "aeiou")] for text in texts]
        vectors = np.array(counts, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
