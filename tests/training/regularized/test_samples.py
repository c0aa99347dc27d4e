"""Samples: drawn by seed, read by both models, labelled by the oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail_training.regularized.samples import LabelledSamples, oracle_labels, read
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.rewards.algebra import Answer, named
from tests.training.regularized.conftest import samples_of
from tests.training.reinforcement.conftest import word_tokenizer


def test_samples_are_the_same_for_the_same_seed_and_iteration(
    learner: Learner, settings: RegularizedSettings
) -> None:
    one, two, other = (samples_of(learner, settings, iteration=number) for number in (3, 3, 4))

    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0, equal_nan=True)
    assert not torch.equal(one.responses.ids[:, :1], other.responses.ids[:, :1])


def test_samples_come_back_from_their_tensors(learner: Learner, settings: RegularizedSettings) -> None:
    samples = samples_of(learner, settings)

    torch.testing.assert_close(
        LabelledSamples.of(samples.state_dict()).state_dict(), samples.state_dict(), equal_nan=True
    )


def test_samples_hold_what_the_language_model_says_of_them(
    learner: Learner, settings: RegularizedSettings
) -> None:
    samples = samples_of(learner, settings)
    slow = learner.read(samples.prompts, samples.responses.ids, samples.responses.mask).logprobs.detach()

    torch.testing.assert_close(samples.reading.log_taken * samples.responses.mask, slow, atol=1e-5, rtol=1e-5)
    assert samples.weights.tolist() == [1.0] * len(samples)
    mask = samples.responses.mask
    torch.testing.assert_close(samples.reading.log_p[mask].exp().sum(dim=1), torch.ones(int(mask.sum())))


def test_the_base_read_without_its_adapter_is_the_untrained_language_model(
    learner: Learner, settings: RegularizedSettings
) -> None:
    samples = samples_of(learner, settings)  # of iteration 0
    with_adapter = read(
        learner,
        samples.prompts,
        samples.responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
    )

    for name in ("states", "ids", "log_p", "log_taken"):
        assert torch.equal(getattr(samples.reading, name), getattr(with_adapter, name))


def test_samples_drawn_hot_are_weighed_back(learner: Learner, settings: RegularizedSettings) -> None:
    hot = samples_of(learner, replace(settings, temperature=2.0, samples_per_prompt=8))

    assert hot.weights.std() > 0.1
    assert hot.weights.mean() == pytest.approx(1)
    assert hot.weights.max() <= 25 * hot.weights.min()  # the bounds are a fifth and five
    likely = hot.log_drawn.argsort(descending=True)
    assert hot.weights[likely[:20]].mean() > hot.weights[likely[-20:]].mean()


def test_soft_labels_must_lie_between_0_and_1(settings: RegularizedSettings) -> None:
    answers = [Answer(query="", prompt="", response=response) for response in ("a0", "a1 a2 a3")]
    length = named("length", lambda answers: [len(answer.response.split()) for answer in answers])

    assert oracle_labels(
        length, answers, settings=replace(settings, labels="hard", success_from=1.0)
    ).tolist() == [
        1.0,
        1.0,
    ]
    with pytest.raises(ConfigError, match=r"must lie in 0\.\.1; length gave 1 to 3; set labels to hard"):
        oracle_labels(length, answers, settings=settings)


def test_the_oracle_is_asked_about_every_other_prefix_and_the_whole(
    learner: Learner, settings: RegularizedSettings
) -> None:
    samples = samples_of(learner, replace(settings, prefix_weight=1.0))

    tokenizer = word_tokenizer()
    for row in range(len(samples)):
        length = int(samples.responses.lengths[row])
        for column in range(samples.prefix_labels.shape[1]):
            label = float(samples.prefix_labels[row, column])
            if column < length and (length - 1 - column) % 2 == 0:
                text = tokenizer.decode(samples.responses.ids[row, : column + 1], skip_special_tokens=True)
                assert label == float("d" not in text)
            else:
                assert math.isnan(label)
        assert float(samples.prefix_labels[row, length - 1]) == float(samples.labels[row])


def test_the_oracle_is_not_asked_about_prefixes_that_count_nothing(
    learner: Learner, settings: RegularizedSettings
) -> None:
    assert bool(samples_of(learner, settings).prefix_labels.isnan().all())


def test_samples_of_several_iterations_stand_one_below_the_other(
    learner: Learner, settings: RegularizedSettings
) -> None:
    short = replace(settings, response_tokens=3, prefix_weight=1.0)
    parts = [
        samples_of(learner, replace(settings, prefix_weight=1.0)),
        samples_of(learner, short, iteration=1).select(torch.arange(4)),  # shorter prompts, too
    ]

    joined = LabelledSamples.joined(parts)

    whole = joined.select(torch.arange(48)), joined.select(torch.arange(48, 52))
    for part, found in zip(parts, whole, strict=True):
        time = part.responses.ids.shape[1]
        for name, values in part.state_dict().items():
            same = found.state_dict()[name]
            if name.startswith("prompts."):
                same = same[:, same.shape[1] - values.shape[1] :]
            elif values.dim() > 1:
                same = same[:, :time]
            torch.testing.assert_close(same, values, atol=0, rtol=0, equal_nan=True)
    assert bool(joined.prefix_labels[48:, 3:].isnan().all())
    assert not bool(joined.responses.mask[48:, 3:].any())
