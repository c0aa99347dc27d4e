"""What a classifier or a reward says of given texts: ``guardrail-train score``, to look before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.errors import UsageError
from guardrail_training import modeling
from guardrail_training.data import read_texts
from guardrail_training.rewards.algebra import Answer, Reward
from guardrail_training.rewards.formula import read_formula
from guardrail_training.rewards.models import Classified, classify, load_classifier

__all__ = ["Scores", "score_texts", "texts_of"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one text: logits and probabilities by class, None without a classifier; the reward and its terms,
    None without one."""

    text: str = field(repr=False)
    logits: dict[str, float] | None
    probabilities: dict[str, float] | None
    reward: float | None
    terms: dict[str, float] | None


def texts_of(given: Sequence[str], *, file: str | Path | None, name: str) -> list[str]:
    """The texts given, then those of a file's field; UsageError for none at all."""
    texts = [*given, *(text.content for text in read_texts(file, field=name))] if file else list(given)
    if not texts:
        raise UsageError("no text to score: give some, or a file with --file and --field")
    return texts


def score_texts(
    texts: Sequence[str],
    *,
    query: str = "",
    classifier: str | None = None,
    revision: str | None = None,
    label: str | None = None,
    formula: str | None = None,
    device: str = "auto",
) -> list[Scores]:
    """The scores of each text as a response to ``query``.

    The reward is ``formula``'s, or the classifier's logit of the class ``label``. Raises UsageError for
    neither a classifier nor a formula, and what these raise.
    """
    if classifier is None and formula is None:
        raise UsageError("nothing to score by: give --classifier FOLDER or --reward FORMULA")
    if label is not None and (classifier is None or formula is not None):
        raise UsageError("--label makes a classifier's logit the reward: give --classifier and no --reward")
    place = modeling.resolve_device(device)
    found: Classified | None = None
    if classifier is not None:
        model, tokenizer = load_classifier(classifier, revision=revision, device=place)
        found = classify(model, tokenizer, [query + text for text in texts])
        if label is not None and label not in found.labels:
            raise UsageError(f"the classifier has no class {label!r}; its classes are {sorted(found.labels)}")
    reward = read_formula(formula, device=device) if formula else None
    return list(_scores(texts, query=query, found=found, label=label, reward=reward))


def _scores(
    texts: Sequence[str], *, query: str, found: Classified | None, label: str | None, reward: Reward | None
) -> Iterator[Scores]:
    answers = [Answer(query=query, prompt=query, response=text) for text in texts]
    scored = reward(answers) if reward is not None else None
    for place, text in enumerate(texts):
        logits = probabilities = terms = total = None
        if found is not None:
            logits = dict(zip(found.labels, map(float, found.logits[place]), strict=True))
            probabilities = dict(zip(found.labels, map(float, found.probabilities[place]), strict=True))
            total = logits[label] if label is not None else None
        if scored is not None:
            total = float(scored.total[place])
            terms = {name: float(values[place]) for name, values in scored.terms.items()}
        yield Scores(text, logits, probabilities, total, terms)
