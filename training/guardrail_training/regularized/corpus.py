"""The mixture that a language model is fine-tuned on: a guided part and a general part."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.manifest import Template
from guardrail_training.data import draw_reference, drop_copies, read_rows, read_texts
from guardrail_training.modeling import encode_example
from guardrail_training.records import TrainingRowError, read_records
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.rollouts import PromptQuery

__all__ = ["CorpusMixture", "CorpusPassage", "last_statements", "load_mixture", "opening", "text_ids"]

MARK = "-"  # how a statement of a list begins


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """Token ids of a corpus text: a prompt that is only read, a response that is learned.

    ``text`` is the response's text, which the oracle is asked about; ``guided`` says which part it is of.
    """

    prompt: tuple[int, ...] = field(repr=False)
    response: tuple[int, ...] = field(repr=False)
    text: str = field(repr=False)
    guided: bool


@dataclass(frozen=True, slots=True)
class CorpusMixture:
    """Both parts of a corpus, and the prompts for which responses are drawn in the guided domain.

    ``known`` are texts that the oracle is asked about and that nothing else is learned from.
    """

    guided: tuple[CorpusPassage, ...] = field(repr=False)
    general: tuple[CorpusPassage, ...] = field(repr=False)
    queries: tuple[PromptQuery, ...] = field(repr=False)
    known: tuple[CorpusPassage, ...] = field(repr=False, default=())


def load_mixture(folder: Path, settings: RegularizedSettings, *, tokenizer: Any) -> CorpusMixture:
    """Both parts, encoded; TrainingRowError names the first text that cannot be used."""
    path = folder / settings.guided
    if settings.template is None:
        guided, queries = _statements(path, settings, tokenizer)
    else:
        guided, queries = _pairs(path, settings, tokenizer, template=Template(settings.template))
    longest = max(len(passage.prompt) + len(passage.response) for passage in guided)
    if longest > settings.max_tokens:
        raise TrainingRowError(
            f"{path}: a text has {longest} tokens, more than max_tokens = {settings.max_tokens}; raise it, "
            "or leave such rows out"
        )
    general: list[CorpusPassage] = []
    if settings.general:
        reader = _questions if settings.general.endswith(".jsonl") else _windows
        general = reader(folder / settings.general, settings, tokenizer)
    known = _known(folder, settings, tokenizer) if settings.draws else []
    return CorpusMixture(
        guided=tuple(guided), general=tuple(general), queries=tuple(queries), known=tuple(known)
    )


def last_statements(text: str, *, count: int) -> list[str]:
    """The last lines of a list, without blank ones and without the mark with which a new one would begin.

    The mark may stand at the end of the last statement's line, as in some of ToxiGen's prompts.
    """
    lines = text.rstrip().removesuffix(MARK).split("\n")
    return [line.rstrip() for line in lines if line.strip() not in ("", MARK)][-count:]


def _statements(
    path: Path, settings: RegularizedSettings, tokenizer: Any
) -> tuple[list[CorpusPassage], list[PromptQuery]]:
    """Lists of statements: the last one is learned, a further one is drawn."""
    passages, queries = [], []
    for row in read_texts(path, field=settings.field):
        lines = last_statements(row.content, count=settings.statements)
        if not lines or not all(line.startswith(MARK) for line in lines):
            raise TrainingRowError(f"{path} row {row.number}: a line does not begin with {MARK!r}")
        prompt, text = ("\n".join([*part, MARK]) for part in (lines[:-1], lines))
        last = lines[-1].removeprefix(MARK)
        passages.append(
            CorpusPassage(
                prompt=(*opening(tokenizer), *text_ids(tokenizer, prompt)),
                response=text_ids(tokenizer, last + "\n"),
                text=last.strip(),
                guided=True,
            )
        )
        ids = (*opening(tokenizer), *text_ids(tokenizer, text))
        queries.append(PromptQuery(text=text, prompt=text, ids=ids))
    return passages, queries


def _pairs(
    path: Path, settings: RegularizedSettings, tokenizer: Any, *, template: Template
) -> tuple[list[CorpusPassage], list[PromptQuery]]:
    """Parallel sentences: one drawn neutral sentence is learned, others are drawn."""
    passages, queries = [], []
    for row in drop_copies(read_rows(path)):
        pair = draw_reference(row, seed=settings.seed, pass_index=0)
        example = encode_example(tokenizer, template, source=pair.source, target=pair.target)
        passages.append(
            CorpusPassage(prompt=example.prompt, response=example.target, text=pair.target, guided=True)
        )
        prompt = template.literal.replace("{text}", pair.source)
        queries.append(PromptQuery(text=pair.source, prompt=prompt, ids=example.prompt))
    return passages, queries


def _questions(path: Path, settings: RegularizedSettings, tokenizer: Any) -> list[CorpusPassage]:
    """Prompts with responses, cut at the prompt's start if they are longer than ``max_tokens``."""
    passages = []
    for row in read_records(path, fields={"prompt": str, "response": str}):
        response = text_ids(tokenizer, row["response"])
        if not response:
            raise TrainingRowError(f"{path} row {row.number}: field 'response' must not be empty")
        begin = opening(tokenizer)
        room = settings.max_tokens - len(response) - len(begin)
        prompt = (*begin, *text_ids(tokenizer, row["prompt"])[-room:])
        passages.append(
            CorpusPassage(prompt=prompt, response=response, text=row["response"].strip(), guided=False)
        )
    return passages


def _known(folder: Path, settings: RegularizedSettings, tokenizer: Any) -> list[CorpusPassage]:
    """Texts of all files alike, as many as are asked for, each as the beginning of a response."""
    passages = []
    files = settings.known_texts
    for name in files:
        texts = read_texts(folder / name, field="text")
        count = min(len(texts), settings.known_rows // len(files))
        for text in random.Random(f"known-{name}-{settings.seed}").sample(texts, count):
            response = text_ids(tokenizer, " " + text.content)[: settings.response_tokens]
            prompt = (*opening(tokenizer), *text_ids(tokenizer, MARK))
            passages.append(CorpusPassage(prompt=prompt, response=response, text=text.content, guided=False))
    return passages


def _windows(path: Path, settings: RegularizedSettings, tokenizer: Any) -> list[CorpusPassage]:
    """Plain text cut into windows, the rest at its end left out."""
    if not path.is_file():
        raise TrainingRowError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
    ids = text_ids(tokenizer, path.read_text(encoding="utf-8"))
    size, context = settings.window, settings.context
    windows = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    if not windows:
        raise ConfigError(f"{path} has fewer than window = {size} tokens")
    return [
        CorpusPassage(
            prompt=(*opening(tokenizer), *window[:context]),
            response=window[context:],
            text=tokenizer.decode(window[context:]).strip(),
            guided=False,
        )
        for window in windows
    ]


def opening(tokenizer: Any) -> tuple[int, ...]:
    """The token that begins every sequence of a model that was trained with one, such as Llama; else none."""
    return (tokenizer.bos_token_id,) if getattr(tokenizer, "add_bos_token", False) else ()


def text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The token ids of a text; control tokens that occur in it are split into ordinary pieces."""
    ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return tuple(ids)
