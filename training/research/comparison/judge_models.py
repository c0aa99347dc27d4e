"""Models that answer A or B: a causal language model on this machine, or one behind an endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from guardrail.errors import ConfigError, MissingExtraError, PluginError
from guardrail_training.modeling.families import family_of
from research.comparison.pairwise import Judge
from research.comparison.subject import ComparedModel

__all__ = ["connect", "endpoint_judge", "likelihood_judge"]

ROWS = 16  # questions in memory at a time
CALLS, TIMEOUT = 4, 60.0  # to an endpoint at a time; seconds for one of them
CONTENT = "\N{OBJECT REPLACEMENT CHARACTER}"
# "A", "B.", "(A)", "**B**", "Continuation A", "A: it ..."; not the article in "A good text".
LETTER = re.compile(r"\W*(?:continuation\W+)?([ab])(?:\W*$|[).:,*\n])", re.IGNORECASE)


def likelihood_judge(subject: ComparedModel) -> Judge:
    """A causal language model as a judge: the answer whose letter it finds likelier as the next token.

    A model with a chat template is asked in it, any other with the plain question.
    """
    family = family_of(subject.model, pad_id=subject.tokenizer.pad_token_id)
    before, after, blank = _turn(subject.tokenizer)
    first, second = (subject.ids(f"{blank}{letter}") for letter in "AB")
    if first == second or len(first) != len(second) or first[:-1] != second[:-1]:
        raise ConfigError("judge: its tokenizer does not tell the answers A and B apart by one token")
    letters = torch.tensor([first[-1], second[-1]], device=subject.model.device)

    @torch.no_grad()
    def ask(questions: Sequence[str]) -> list[str]:
        answers = []
        for start in range(0, len(questions), ROWS):
            part = questions[start : start + ROWS]
            prompts = [[*before, *subject.ids(each), *after, *first[:-1]] for each in part]
            logits = family.head(family.begin(family.pad(prompts)).states)[:, letters]
            answers += ["A" if a > b else "B" if b > a else "" for a, b in logits.tolist()]
        return answers

    return ask


def _turn(tokenizer: Any) -> tuple[list[int], list[int], str]:
    """Token ids around a question, and what stands before the letter of an answer."""
    if not getattr(tokenizer, "chat_template", None):
        return [], [], " "
    turn = [{"role": "user", "content": CONTENT}]
    said = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    # The question is encoded apart, so that no control token in it counts as one.
    before, _, after = said.partition(CONTENT)
    ids = [tokenizer.encode(part, add_special_tokens=False) for part in (before, after)]
    return ids[0], ids[1], ""


def connect(endpoint: str) -> Any:
    """A client of an OpenAI-compatible API, its key from OPENAI_API_KEY where that is set."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtraError(feature="a judge behind an endpoint", extra="dev") from error
    key = os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to have none
    return OpenAI(base_url=endpoint, api_key=key, timeout=TIMEOUT)


def endpoint_judge(client: Any, *, model: str) -> Judge:
    """A model behind an OpenAI-compatible endpoint as a judge; ``client`` is an ``openai.OpenAI``.

    An answer without a letter of its own at its beginning is no opinion. Raises PluginError if the
    endpoint fails.
    """

    def answer(question: str) -> str:
        try:
            done = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=4,
                temperature=0,
            )
            said = done.choices[0].message.content or ""
        except Exception as error:  # noqa: BLE001  # whatever it is, its message may quote the question
            raise PluginError(_failure(error), reason="judge_failed", original=error) from None
        found = LETTER.match(said)
        return found[1].upper() if found else ""

    def ask(questions: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(CALLS) as pool:
            return list(pool.map(answer, questions))

    return ask


def _failure(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    told = type(error).__name__ if status is None else f"{type(error).__name__}, status {status}"
    return f"the judge's endpoint failed ({told}): check its address, the model's name and OPENAI_API_KEY"
