"""The auxiliary model: neutral until trained, learns what the oracle says, comes back from its files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.errors import ConfigError, ModelFileError, ModelMissingError
from guardrail_training.regularized.auxiliary import Auxiliary, load_auxiliary, save_auxiliary
from guardrail_training.regularized.fitting import beliefs, fit
from guardrail_training.regularized.guidance import Guidance
from guardrail_training.regularized.quality import quality, ranking_quality
from guardrail_training.regularized.reading import read
from guardrail_training.regularized.samples import Samples, opinions
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Answer, named
from tests.training.regularized.conftest import samples_of
from tests.training.reinforcement.conftest import WORDS, word_tokenizer


def auxiliary_of(learner: Learner, *, stirred: bool = False) -> Auxiliary:
    torch.manual_seed(0)
    auxiliary = Auxiliary(base_of(learner).get_input_embeddings().weight, hidden=32, blocks=1, rank=8)
    if stirred:
        with torch.no_grad():
            for parameter in auxiliary.parameters():
                parameter.add_(torch.randn_like(parameter))
    return auxiliary


def base_of(learner: Learner) -> Any:
    return learner.model.get_base_model()


def guidance_of(auxiliary: Auxiliary, *, candidates: int = 8) -> Guidance:
    return Guidance(auxiliary, strength=1.0, most_log_ratio=5.0, candidates=candidates)


def fitted(learner: Learner, settings: RegularizedSettings, samples: Samples) -> Auxiliary:
    auxiliary = auxiliary_of(learner)
    auxiliary.start_at(samples.rate)
    optimizer = torch.optim.AdamW(auxiliary.parameters(), lr=1e-2, weight_decay=0.0)
    fit(auxiliary, optimizer, samples, settings=settings, iteration=0, steps=150)
    return auxiliary


def test_until_trained_it_has_one_success_everywhere_and_guides_nothing(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner)
    auxiliary.start_at(0.8)
    states, logits = torch.randn(5, 3, 32), torch.randn(5, 35)

    found = auxiliary(states, torch.arange(35).expand(5, 3, -1)).sigmoid()

    torch.testing.assert_close(found, torch.full((5, 3, 35), 0.8))
    torch.testing.assert_close(guidance_of(auxiliary).logits(states, logits), logits.log_softmax(dim=1))


def test_a_candidate_has_its_success_whatever_the_others_are(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states = torch.randn(3, 4, 32)

    every = auxiliary(states, torch.arange(35).expand(3, 4, -1))
    few = auxiliary(states, torch.tensor([7, 30, 2]).expand(3, 4, -1))

    torch.testing.assert_close(few, every[..., [7, 30, 2]])
    assert every.std() > 0.1


def test_no_position_sees_a_later_one_and_the_last_may_be_asked_alone(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states, ids = torch.randn(2, 6, 32), torch.arange(9).expand(2, 6, -1)
    whole = auxiliary(states, ids)

    for time in (1, 4):
        torch.testing.assert_close(auxiliary(states[:, :time], ids[:, :time]), whole[:, :time])
        torch.testing.assert_close(auxiliary.last(states[:, :time], ids[:, time]), whole[:, time - 1])


def test_the_bases_embeddings_are_read_but_neither_trained_nor_saved(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)

    auxiliary(torch.randn(3, 2, 32), torch.arange(9).expand(3, 2, -1)).sum().backward()

    assert "embeddings" not in auxiliary.state_dict()
    assert auxiliary.embeddings.data_ptr() == base_of(learner).get_input_embeddings().weight.data_ptr()
    assert auxiliary.embeddings.grad is None
    assert all(parameter.grad is not None for parameter in auxiliary.parameters())


def test_rows_shorter_than_the_rest_are_asked_like_any(
    learner: Learner, settings: RegularizedSettings
) -> None:
    samples = samples_of(learner, replace(settings, samples_per_prompt=8))
    lengths = samples.responses.lengths
    shorter = (lengths < lengths.max()).nonzero()[:, 0]
    auxiliary = auxiliary_of(learner, stirred=True)
    auxiliary.start_at(samples.rate)

    together = quality(auxiliary, samples.select(shorter), success_from=0.5)

    alone = [quality(auxiliary, samples.select(row[None]), success_from=0.5) for row in shorter]
    assert len(alone) > 1
    pairs = (lengths[shorter] - 1).tolist()
    gaps = [count * each["auxiliary/gap"] for count, each in zip(pairs, alone, strict=True)]
    assert together["auxiliary/gap"] == pytest.approx(sum(gaps) / sum(pairs), rel=1e-5)
    briers = [each["auxiliary/brier"] for each in alone]
    assert together["auxiliary/brier"] == pytest.approx(sum(briers) / len(briers), rel=1e-5)


def test_fitted_to_samples_it_orders_and_rates_new_ones(
    learner: Learner, settings: RegularizedSettings
) -> None:
    many = replace(settings, samples_per_prompt=20)
    auxiliary = fitted(learner, many, samples_of(learner, many, iteration=0))
    fresh = samples_of(learner, many, iteration=1)
    untrained = auxiliary_of(learner)
    untrained.start_at(fresh.rate)

    found = quality(auxiliary, fresh, success_from=0.5)
    before = quality(untrained, fresh, success_from=0.5)

    assert before["auxiliary/auc_100"] == 0.5
    assert 0.55 < found["auxiliary/auc_25"] < found["auxiliary/auc_100"]
    assert found["auxiliary/auc_100"] > 0.7
    assert found["auxiliary/brier"] < 0.9 * before["auxiliary/brier"]
    assert found["auxiliary/rate"] == pytest.approx(found["auxiliary/label"], abs=0.12)
    assert found["auxiliary/gap"] < 0.25


def test_the_posterior_succeeds_more_often_than_the_language_model(
    learner: Learner, settings: RegularizedSettings
) -> None:
    many = replace(settings, samples_per_prompt=20)
    samples = samples_of(learner, many)
    auxiliary = fitted(learner, many, samples)

    guidance, reading, mask = guidance_of(auxiliary, candidates=35), samples.reading, samples.responses.mask
    guided = guidance.over(reading.states, reading.ids, reading.log_p)

    letters_d = (reading.ids[mask] >= 3 + 24).float()
    before = (reading.log_p[mask][:, :-1].exp() * letters_d).sum(dim=1)
    after = (guided.log_q[mask][:, :-1].exp() * letters_d).sum(dim=1)
    assert float(after.mean()) < 0.7 * float(before.mean())


def test_fitting_depends_on_seed_and_iteration_alone(learner: Learner, settings: RegularizedSettings) -> None:
    samples = samples_of(learner, settings)

    one, two = (fitted(learner, settings, samples) for _ in range(2))

    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0, equal_nan=True)


def test_both_views_of_a_prefix_lie_between_0_and_1(learner: Learner, settings: RegularizedSettings) -> None:
    after, before = beliefs(auxiliary_of(learner, stirred=True), samples_of(learner, settings))

    for view in (after, before):
        assert bool(((view >= 0) & (view <= 1)).all())


def test_samples_are_the_same_for_the_same_seed_and_iteration(
    learner: Learner, settings: RegularizedSettings
) -> None:
    one, two, other = (samples_of(learner, settings, iteration=number) for number in (3, 3, 4))

    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0, equal_nan=True)
    assert not torch.equal(one.responses.ids[:, :1], other.responses.ids[:, :1])


def test_samples_come_back_from_their_tensors(learner: Learner, settings: RegularizedSettings) -> None:
    samples = samples_of(learner, settings)

    torch.testing.assert_close(
        Samples.of(samples.state_dict()).state_dict(), samples.state_dict(), equal_nan=True
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
        dtype=torch.float32,
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

    assert opinions(
        length, answers, settings=replace(settings, labels="hard", success_from=1.0)
    ).tolist() == [
        1.0,
        1.0,
    ]
    with pytest.raises(ConfigError, match=r"must lie in 0\.\.1; length gave 1 to 3; set labels to hard"):
        opinions(length, answers, settings=settings)


def test_ranking_quality_counts_pairs_and_ties() -> None:
    scores, positive = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False])

    assert ranking_quality(scores, positive) == 0.875
    assert ranking_quality(scores, torch.ones(4, dtype=torch.bool)) is None


def test_it_comes_back_from_its_files(learner: Learner, tmp_path: Path) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states, ids = torch.randn(3, 2, 32), torch.arange(9).expand(3, 2, -1)

    files = save_auxiliary(auxiliary, tmp_path, base_sha256="b" * 64)
    back = load_auxiliary(tmp_path, model=base_of(learner), base_sha256="b" * 64)

    assert sorted(path.name for path in files) == ["auxiliary.json", "auxiliary.safetensors"]
    torch.testing.assert_close(back(states, ids), auxiliary(states, ids))
    assert not any(parameter.requires_grad for parameter in back.parameters())


def test_a_missing_or_changed_file_or_another_base_is_an_error(learner: Learner, tmp_path: Path) -> None:
    base = base_of(learner)
    with pytest.raises(ModelMissingError, match="guardrail-train regularized"):
        load_auxiliary(tmp_path, model=base, base_sha256="b" * 64)
    weights, description = save_auxiliary(auxiliary_of(learner), tmp_path, base_sha256="b" * 64)
    with pytest.raises(ModelFileError, match="reads another base"):
        load_auxiliary(tmp_path, model=base, base_sha256="c" * 64)

    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"sha256": "0" * 64}))
    with pytest.raises(ModelFileError, match=f"{weights.name} is not the file"):
        load_auxiliary(tmp_path, model=base, base_sha256="b" * 64)


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


def test_opinions_of_prefixes_teach_which_token_mattered(
    learner: Learner, settings: RegularizedSettings
) -> None:
    told = replace(settings, prefix_weight=3.0, samples_per_prompt=8)
    samples, fresh = samples_of(learner, told), samples_of(learner, told, iteration=1)
    bad = torch.tensor([[word.startswith("d") for word in ("", "", "", *WORDS)]])

    def contrast(chosen: RegularizedSettings) -> float:
        auxiliary = fitted(learner, chosen, samples)
        every = torch.arange(35).expand(*fresh.responses.ids.shape, -1)
        logits = auxiliary(fresh.reading.states, every)[fresh.responses.mask].detach()
        return float((logits[:, ~bad[0]].mean(dim=1) - logits[:, bad[0]].mean(dim=1)).mean())

    assert contrast(told) > 1.5 * contrast(replace(told, prefix_weight=0.0))


def test_samples_of_several_iterations_stand_one_below_the_other(
    learner: Learner, settings: RegularizedSettings
) -> None:
    short = replace(settings, response_tokens=3, prefix_weight=1.0)
    parts = [
        samples_of(learner, replace(settings, prefix_weight=1.0)),
        samples_of(learner, short, iteration=1).select(torch.arange(4)),  # shorter prompts, too
    ]

    joined = Samples.joined(parts)

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
