"""Draws candidate rewrites from a policy and ranks them by reward."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from guardrail.manifest import Template
from guardrail_training.data import Row
from guardrail_training.preference.comparisons import Comparison
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.records import TrainingRowError
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.queries import Query
from guardrail_training.reinforcement.sampling import noise_for, sample
from guardrail_training.rewards.algebra import Answer, Reward

__all__ = ["Sentence", "compare", "distinct", "draw_sentences"]

COLD = 1e-4
"""The temperature of the greedy candidate: the likeliest token has all the probability."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A toxic sentence that is asked about, with its human rewrites; ``number`` is its row in the data."""

    number: int
    query: Query
    references: tuple[str, ...] = field(repr=False)


def draw_sentences(
    rows: Sequence[Row], *, tokenizer: Any, template: Template, settings: PreferenceSettings
) -> tuple[Sentence, ...]:
    """A seeded draw of the rows, encoded; a larger draw begins with the smaller one.

    Raises TrainingRowError, before anything is sampled, where no row is left or a prompt is too long.
    """
    if not rows:
        raise TrainingRowError("no row is left to draw from: every reference copies its source")
    order = list(rows)
    random.Random(f"sentences-{settings.seed}").shuffle(order)
    return tuple(
        _sentence(row, tokenizer=tokenizer, template=template, settings=settings)
        for row in order[: settings.sentences]
    )


def _sentence(row: Row, *, tokenizer: Any, template: Template, settings: PreferenceSettings) -> Sentence:
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
    return Sentence(row.number, Query(text=row.source, prompt=prompt, ids=ids), tuple(row.references))


def compare(
    learner: Learner,
    sentences: Sequence[Sentence],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PreferenceSettings,
) -> list[Comparison]:
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


def _ranked(sentence: Sentence, scored: Sequence[tuple[str, float]]) -> Comparison:
    ranked = sorted(scored, key=lambda candidate: -candidate[1])
    if len(ranked) < 2:
        return Comparison(row=sentence.number, query=sentence.query.text, candidates=len(ranked))
    (chosen, best), (rejected, worst) = ranked[0], ranked[-1]
    return Comparison(
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
    sentences: Sequence[Sentence],
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
        _seed(settings.seed, sentence.number, candidate)
        for sentence in sentences
        for candidate in range(times)
    ]
    with learner.sampling() as family:
        responses = sample(
            family,
            family.pad([sentence.query.ids for sentence in sentences for _ in range(times)]),
            noise=noise_for(seeds, tokens=settings.response_tokens),
            limits=torch.full((len(seeds),), settings.response_tokens),
            temperature=temperature,
            stop_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
        )
    return [
        [
            tokenizer.decode(responses.tokens(row), skip_special_tokens=True).strip()
            for row in range(place * times, (place + 1) * times)
            if responses.ended[row]
        ]
        for place in range(len(sentences))
    ]


def _seed(seed: int, row: int, candidate: int) -> int:
    digest = hashlib.sha256(f"candidate-{seed}-{row}-{candidate}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
