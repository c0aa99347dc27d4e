"""What is taught, and the step that it makes, against a slow loop over rows, tokens and the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from guardrail_training.modeling import trainable_parameters
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.guidance import Guidance
from guardrail_training.regularized.corpus import CorpusPassage
from guardrail_training.regularized.posterior_targets import (
    TuneBatch,
    corpus_targets,
    sample_targets,
    tune_step,
)
from guardrail_training.regularized.samples import LabelledSamples
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from tests.training.nado.conftest import auxiliary_of, base_of
from tests.training.regularized.conftest import samples_of

VOCABULARY = 35
STRENGTH = 1.5
PASSAGES = [
    CorpusPassage(prompt=(5, 6), response=(7, 8, 9), text="", guided=True),
    CorpusPassage(prompt=(10,), response=(11, 1), text="", guided=True),
]


@pytest.fixture
def exact(settings: RegularizedSettings) -> RegularizedSettings:
    """All tokens are candidates and no bound binds."""
    return replace(
        settings,
        candidates=VOCABULARY,
        strength=STRENGTH,
        max_log_ratio=50.0,
        max_prefix_weight=1e9,
        min_weight=0.0,
        max_weight=1e9,
        min_success=0.0,
    )


def moved(learner: Learner, *, seed: int = 3) -> None:
    """The language model as some training would have left it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(learner):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def stirred(learner: Learner) -> Auxiliary:
    """An auxiliary model that tells prefixes apart, within the bounds of its logits."""
    auxiliary = auxiliary_of(learner)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in auxiliary.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return auxiliary


def guidance_of(auxiliary: Auxiliary) -> Guidance:
    return Guidance(auxiliary, strength=STRENGTH, max_log_ratio=50.0, candidates=VOCABULARY)


def log_p(learner: Learner, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """The language model's log-probabilities before each token ``(time, vocabulary)``, this row alone."""
    ids = torch.tensor([[*prompt, *response]])
    logits: Tensor = base_of(learner)(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What the posterior is along one text: log q ``(time, vocabulary)`` and log R of each prefix."""

    log_q: Tensor
    log_success: Tensor


@torch.no_grad()
def posterior_of(
    learner: Learner, auxiliary: Auxiliary, prompt: Sequence[int], response: Sequence[int]
) -> Row:
    now = log_p(learner, prompt, response)
    with learner.model.disable_adapter():
        ids = torch.tensor([[*prompt, *response]])
        trunk: Any = base_of(learner).base_model
        states = trunk(input_ids=ids).last_hidden_state[:, len(prompt) - 1 : -1]
    every = torch.arange(VOCABULARY).expand(1, len(response), -1)
    after = torch.nn.functional.logsigmoid(auxiliary(states, every)[0])  # (time, vocabulary)
    return Row((now + STRENGTH * after).log_softmax(dim=1), (now + after).logsumexp(dim=1))


def rows_of(samples: LabelledSamples) -> list[tuple[list[int], list[int]]]:
    prompts = [
        ids[mask].tolist() for ids, mask in zip(samples.prompts.ids, samples.prompts.mask, strict=True)
    ]
    lengths = samples.responses.lengths.tolist()
    return [
        (prompt, ids[:length].tolist())
        for prompt, ids, length in zip(prompts, samples.responses.ids, lengths, strict=True)
    ]


def slow_samples_loss(
    learner: Learner,
    rows: Sequence[tuple[list[int], list[int]]],
    posteriors: Sequence[Row],
    drawn: list[Tensor],
) -> Tensor:
    """The mean over drawn tokens of KL(q || p), each prefix as often as q would reach it."""
    total, tokens = torch.zeros(()), sum(len(response) for _, response in rows)
    now = [log_p(learner, *row) for row in rows]
    ratios = [
        (after.detach() - before).gather(1, torch.tensor(response)[:, None])[:, 0]
        for after, before, (_, response) in zip(now, drawn, rows, strict=True)
    ]
    for row, (_, response) in enumerate(rows):
        for step in range(len(response)):
            going = [other for other, (_, others) in enumerate(rows) if step < len(others)]
            odds = {other: float(ratios[other][:step].sum().exp()) for other in going}
            importance = odds[row] / (sum(odds.values()) / len(going))
            found = posteriors[row]
            reached = float((found.log_success[step] - found.log_success[0]).exp())
            q = found.log_q[step].exp()
            total = total + importance * reached * (q * (found.log_q[step] - now[row][step])).sum()
    return total / tokens


def step_of(learner: Learner, batch: TuneBatch, **weights: float) -> tuple[dict[str, float], list[Tensor]]:
    """The figures of an optimizer step and the gradient that it followed."""
    before = [parameter.detach().clone() for parameter in trainable_parameters(learner)]
    figures = tune_step(
        learner,
        torch.optim.SGD(trainable_parameters(learner), lr=1.0),
        batch,
        microbatch_size=3,
        max_grad_norm=1e9,
        **weights,
    )
    return figures, [
        old - new.detach() for old, new in zip(before, trainable_parameters(learner), strict=True)
    ]


def gradient_of(learner: Learner, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, trainable_parameters(learner)))


def assert_alike(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("are_fresh", [True, False])
def test_drawn_responses_teach_what_a_slow_loop_says(
    learner: Learner, exact: RegularizedSettings, are_fresh: bool
) -> None:
    auxiliary = stirred(learner)
    if are_fresh:
        moved(learner)
    samples = samples_of(learner, exact, iteration=1).select(torch.arange(11))
    rows = rows_of(samples)
    with torch.no_grad():
        drawn = [log_p(learner, *row) for row in rows]
    if not are_fresh:
        moved(learner)

    targets = sample_targets(learner, guidance_of(auxiliary), samples, settings=exact, are_fresh=are_fresh)
    posteriors = [posterior_of(learner, auxiliary, *row) for row in rows]
    expected = slow_samples_loss(learner, rows, posteriors, drawn)
    slope = gradient_of(learner, 3 * expected)
    figures, found = step_of(
        learner, TuneBatch(plain=[], taught=None, drawn=targets), corpus_weight=0.0, samples_weight=3.0
    )

    assert figures["loss/samples_kl"] == pytest.approx(expected.item(), rel=1e-4)
    assert expected.item() > 1e-3
    assert_alike(found, slope)


def test_corpus_texts_teach_the_posterior_beside_themselves(
    learner: Learner, exact: RegularizedSettings
) -> None:
    auxiliary = stirred(learner)
    moved(learner)
    plain = CorpusPassage(prompt=(12, 13), response=(14, 15), text="", guided=False)

    targets = corpus_targets(
        learner,
        guidance_of(auxiliary),
        PASSAGES,
        settings=exact,
        pad_id=0,
        is_base=False,
    )
    tokens = sum(len(passage.response) for passage in (*PASSAGES, plain))
    expected = torch.zeros(())
    for passage in (*PASSAGES, plain):
        now = log_p(learner, passage.prompt, passage.response)
        expected = expected - now.gather(1, torch.tensor(passage.response)[:, None]).sum()
        if passage.guided:
            log_q = posterior_of(learner, auxiliary, passage.prompt, passage.response).log_q
            expected = expected + 4 * (log_q.exp() * (log_q - now)).sum()
    slope = gradient_of(learner, expected / tokens)
    _, found = step_of(
        learner, TuneBatch(plain=[plain], taught=targets, drawn=None), corpus_weight=4.0, samples_weight=0.0
    )

    assert_alike(found, slope)


def test_a_posterior_taken_before_a_step_stays_what_it_was(
    learner: Learner, exact: RegularizedSettings
) -> None:
    auxiliary = stirred(learner)
    targets = sample_targets(
        learner,
        guidance_of(auxiliary),
        samples_of(learner, exact),
        settings=exact,
        are_fresh=True,
    )
    before = targets.log_q.clone()

    step_of(learner, TuneBatch(plain=[], taught=None, drawn=targets), corpus_weight=0.0, samples_weight=1.0)

    assert torch.equal(targets.log_q, before)
