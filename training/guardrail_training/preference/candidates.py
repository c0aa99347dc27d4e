"""Draws candidate rewrites from a policy, ranks them by reward, and keeps the best and the worst of each.

They are kept in a file that an interrupted run continues.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.integrations.rows.record import to_json
from guardrail.manifest import Template
from guardrail_training.checkpoint import StopRequest
from guardrail_training.data import SourceRow, bucketed_batches
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.records import FileRecord, TrainingRowError, read_records
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.rollouts import PromptQuery, respond, seed_of
from guardrail_training.rewards.algebra import Answer, Reward
from guardrail_training.runlog import progress_bar

__all__ = [
    "FILENAME",
    "CandidateComparison",
    "ParallelSentence",
    "append_comparisons",
    "compare",
    "compare_missing",
    "distinct",
    "draw_sentences",
    "pairs_of",
    "read_comparisons",
    "read_own_pairs",
]

COLD = 1e-4
"""The temperature of the greedy candidate: the likeliest token has all the probability."""
FILENAME = "pairs.jsonl"
FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "row": int,
    "query": str,
    "candidates": int,
    "chosen": (str, type(None)),
    "rejected": (str, type(None)),
    "score_chosen": (int, float, type(None)),
    "score_rejected": (int, float, type(None)),
    "fingerprint": str,
}


@dataclass(frozen=True, slots=True)
class ParallelSentence:
    """A toxic sentence that is asked about, with its human rewrites; ``number`` is its row in the data."""

    number: int
    query: PromptQuery
    references: tuple[str, ...] = field(repr=False)


def draw_sentences(
    rows: Sequence[SourceRow], *, tokenizer: Any, template: Template, settings: PreferenceSettings
) -> tuple[ParallelSentence, ...]:
    """A seeded draw of the rows, encoded; a larger draw begins with the smaller one.

    Raises TrainingRowError, before anything is sampled, if no row is left or a prompt is too long.
    """
    if not rows:
        raise TrainingRowError("no row is left to draw from: every reference copies its source")
    order = list(rows)
    random.Random(f"sentences-{settings.seed}").shuffle(order)
    return tuple(
        _sentence(row, tokenizer=tokenizer, template=template, settings=settings)
        for row in order[: settings.sentences]
    )


def _sentence(
    row: SourceRow, *, tokenizer: Any, template: Template, settings: PreferenceSettings
) -> ParallelSentence:
    ids = tuple(template.encode(tokenizer, row.source))
    learned = row.references if settings.references else ()
    lengths = [len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in learned]
    longest = len(ids) + max([settings.response_tokens, *lengths])
    if longest > settings.max_tokens:
        raise TrainingRowError(
            f"row {row.number}: prompt and response may have {longest} tokens, more than max_tokens = "
            f"{settings.max_tokens}; raise it, lower response_tokens or remove the row"
        )
    prompt = template.literal.replace("{text}", row.source)
    return ParallelSentence(
        row.number, PromptQuery(text=row.source, prompt=prompt, ids=ids), tuple(row.references)
    )


def compare(
    learner: Learner,
    sentences: Sequence[ParallelSentence],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PreferenceSettings,
) -> list[CandidateComparison]:
    """The best and the worst of each sentence's candidates: the greedy one, samples, references if wanted.

    A function of weights, sentences and seed; no global random state is read. Candidates that are equal but
    for case and white space count once, empty ones and those that did not end not at all. Of equal rewards
    the earlier candidate is the better one.
    """
    greedy = _drawn(learner, sentences, tokenizer=tokenizer, settings=settings, times=1, temperature=COLD)
    sampled = _drawn(
        learner,
        sentences,
        tokenizer=tokenizer,
        settings=settings,
        times=settings.candidates,
        temperature=settings.temperature,
    )
    texts = [
        distinct([*first, *more, *(sentence.references if settings.references else ())])
        for first, more, sentence in zip(greedy, sampled, sentences, strict=True)
    ]
    answers = [
        Answer(
            query=sentence.query.text,
            prompt=sentence.query.prompt,
            response=text,
            references=sentence.references,
        )
        for sentence, own in zip(sentences, texts, strict=True)
        for text in own
    ]
    scores = iter(reward(answers).total.tolist() if answers else [])
    return [
        _ranked(sentence, [(text, next(scores)) for text in own])
        for sentence, own in zip(sentences, texts, strict=True)
    ]


def distinct(texts: Sequence[str]) -> list[str]:
    """The first of all texts that are equal but for case and white space, without empty ones."""
    firsts: dict[str, str] = {}
    for text in texts:
        if folded := " ".join(text.casefold().split()):
            firsts.setdefault(folded, text)
    return list(firsts.values())


def _ranked(sentence: ParallelSentence, scored: Sequence[tuple[str, float]]) -> CandidateComparison:
    ranked = sorted(scored, key=lambda candidate: -candidate[1])
    if len(ranked) < 2:
        return CandidateComparison(row=sentence.number, query=sentence.query.text, candidates=len(ranked))
    (chosen, best), (rejected, worst) = ranked[0], ranked[-1]
    return CandidateComparison(
        row=sentence.number,
        query=sentence.query.text,
        candidates=len(ranked),
        chosen=chosen,
        rejected=rejected,
        score_chosen=best,
        score_rejected=worst,
    )


def _drawn(
    learner: Learner,
    sentences: Sequence[ParallelSentence],
    *,
    tokenizer: Any,
    settings: PreferenceSettings,
    times: int,
    temperature: float,
) -> list[list[str]]:
    """``times`` responses to each sentence, without those that did not end."""
    if not times:
        return [[] for _ in sentences]
    seeds = [
        seed_of("candidate", settings.seed, sentence.number, candidate)
        for sentence in sentences
        for candidate in range(times)
    ]
    with learner.sampling() as family:
        _, responses, texts = respond(
            family,
            [sentence.query.ids for sentence in sentences for _ in range(times)],
            seeds=seeds,
            tokenizer=tokenizer,
            tokens=settings.response_tokens,
            temperature=temperature,
        )
    return [
        [texts[row] for row in range(place * times, (place + 1) * times) if responses.ended[row]]
        for place in range(len(sentences))
    ]


def compare_missing(
    learner: Learner,
    sentences: Sequence[ParallelSentence],
    comparisons: dict[int, CandidateComparison],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PreferenceSettings,
    fingerprint: str,
    stop: StopRequest,
) -> None:
    """Adds the sentences that have no comparison yet, in memory and on disk, until a signal comes."""
    batches = bucketed_batches(
        [len(sentence.query.ids) for sentence in sentences],
        batch_size=settings.sentences_at_once,
        seed=settings.seed,
        pass_index=0,
    )
    with progress_bar("margin") as progress:
        task = progress.add_task("candidates", total=len(sentences), margin=float("nan"))
        for batch in batches:
            missing = [sentences[index] for index in batch if sentences[index].number not in comparisons]
            if missing:
                new = compare(learner, missing, reward=reward, tokenizer=tokenizer, settings=settings)
                append_comparisons(Path(settings.out) / FILENAME, new, fingerprint=fingerprint)
                comparisons |= {comparison.row: comparison for comparison in new}
            margins = [comparison.margin for comparison in comparisons.values()]
            progress.update(task, advance=len(batch), margin=sum(margins) / len(margins))
            if stop.signal:
                break


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateComparison:
    """What the candidates of one row came to: the best and the worst with their rewards.

    ``row`` is its number in the data. ``candidates`` counts the distinct ones; if there are fewer than
    two, nothing is chosen or rejected and all four are None.
    """

    row: int
    query: str = field(repr=False)
    candidates: int
    chosen: str | None = field(default=None, repr=False)
    rejected: str | None = field(default=None, repr=False)
    score_chosen: float | None = None
    score_rejected: float | None = None

    @property
    def margin(self) -> float:
        """By how much the best is better than the worst; 0 if there are not two."""
        if self.score_chosen is None or self.score_rejected is None:
            return 0.0
        return self.score_chosen - self.score_rejected


def read_comparisons(path: Path, *, fingerprint: str) -> dict[int, CandidateComparison]:
    """The comparisons of an earlier run by row number, none if there is no file.

    A last line that was cut short is removed from the file. Raises TrainingRowError for a row that cannot be
    read, ConfigError for one that other settings or models made.
    """
    if not path.is_file():
        return {}
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)
    if not whole:
        return {}
    return {
        comparison.row: comparison
        for comparison in (
            _comparison(record, where=path, fingerprint=fingerprint)
            for record in read_records(path, fields=FIELDS)
        )
    }


def _comparison(record: FileRecord, *, where: Path, fingerprint: str) -> CandidateComparison:
    if record["fingerprint"] != fingerprint:
        raise ConfigError(
            f"{where} row {record.number} was made with other settings, data or models; choose another --out "
            "or remove the file"
        )
    return CandidateComparison(**{name: record[name] for name in FIELDS if name != "fingerprint"})


def read_own_pairs(
    path: str | Path, *, tokenizer: Any, template: Template, max_tokens: int
) -> list[CandidateComparison]:
    """A user's own pairs: rows with ``prompt``, ``chosen`` and ``rejected``, all texts.

    The prompt is the text that stands in the template. Raises TrainingRowError for a row with an empty field,
    with twice the same response, or with more than ``max_tokens``.
    """
    pairs = []
    for record in read_records(path, fields={"prompt": str, "chosen": str, "rejected": str}):
        where = f"{path} row {record.number}"
        texts = {name: record[name].strip() for name in ("prompt", "chosen", "rejected")}
        if empty := [name for name, text in texts.items() if not text]:
            raise TrainingRowError(f"{where}: field {empty[0]} must be a text, not empty")
        if texts["chosen"] == texts["rejected"]:
            raise TrainingRowError(f"{where}: chosen and rejected are the same text")
        longest = len(template.encode(tokenizer, texts["prompt"])) + 1
        longest += max(
            len(tokenizer.encode(texts[name], add_special_tokens=False)) for name in ("chosen", "rejected")
        )
        if longest > max_tokens:
            raise TrainingRowError(
                f"{where}: prompt and response have {longest} tokens, more than max_tokens = {max_tokens}; "
                "raise it or remove the row"
            )
        pairs.append(
            CandidateComparison(
                row=record.number,
                query=texts["prompt"],
                candidates=2,
                chosen=texts["chosen"],
                rejected=texts["rejected"],
                score_chosen=1.0,
                score_rejected=0.0,
            )
        )
    return pairs


def append_comparisons(path: Path, comparisons: Iterable[CandidateComparison], *, fingerprint: str) -> None:
    """Adds one line for each; they are on disk when this returns."""
    lines = [to_json({**asdict(comparison), "fingerprint": fingerprint}) + "\n" for comparison in comparisons]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())


def pairs_of(
    rows: Sequence[int], comparisons: Mapping[int, CandidateComparison], *, margin: float
) -> list[CandidateComparison]:
    """The comparisons of these rows that are decided by at least ``margin``; TrainingRowError for none."""
    compared = [comparisons[row] for row in rows]
    pairs = [comparison for comparison in compared if comparison.margin >= margin]
    if not pairs:
        alone = sum(comparison.candidates < 2 for comparison in compared)
        widest = max(comparison.margin for comparison in compared)
        raise TrainingRowError(
            f"no pair to train on: of {len(compared)} sentences {alone} have fewer than two candidates, "
            f"and the widest difference in reward is {widest:.3f}; lower margin, or raise candidates, "
            "temperature or sentences"
        )
    return pairs
