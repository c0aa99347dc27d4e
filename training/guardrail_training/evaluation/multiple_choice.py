"""Multiple choice: which answer to a question a model finds likeliest, over files of the usual forms.

    guardrail-train multiple-choice mmlu/test.csv --examples mmlu/dev.csv --shots 5 --style letters
    guardrail-train multiple-choice piqa/dev.jsonl --base FOLDER --adapter FOLDER

Rows are known by their fields: those of MMLU (also its CSV without a header), PIQA, HellaSwag, WinoGrande,
ARC, CommonsenseQA, OpenBookQA, SIQA and BoolQ. With ``style="letters"`` the choices are listed in the prompt
and a letter is the answer, as MMLU is asked; with ``"texts"`` each answer continues the question, and the
likelier one per character wins (``acc_norm`` of evaluation harnesses; ``accuracy`` is without that division).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import ConfigError
from guardrail_training.metrics.statistics import Rate, wilson_rate
from guardrail_training.modeling import EncodedExample
from guardrail_training.records import TrainingRowError, read_records
from guardrail_training.supervised.network import TargetLoss

__all__ = ["STYLES", "ChoiceAccuracy", "ChoiceQuestion", "ask", "prompts_of", "read_questions"]

STYLES = ("texts", "letters")
LETTERS = "ABCDEFGHIJ"
BATCH = 16


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question with its choices, of which ``right`` is the place.

    ``begin`` holds what comes before each choice where that differs (WinoGrande: the sentence up to the blank
    with the choice in it), and ``choices`` then what follows.
    """

    text: str = field(repr=False)
    choices: tuple[str, ...] = field(repr=False)
    right: int
    begin: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ChoiceAccuracy:
    """The shares of right answers over ``accuracy.n`` questions, and how many examples came before each.

    ``per_character`` divides by the length of the answer; None if the answers are letters.
    """

    accuracy: Rate
    per_character: Rate | None
    shots: int
    style: str


def read_questions(path: str | Path) -> list[ChoiceQuestion]:
    """Every question of a file; TrainingRowError names the first row that has none of the known forms."""
    path = Path(path)
    if path.suffix == ".csv" and (rows := _headerless(path)):
        return rows
    found = []
    for record in read_records(path):
        try:
            question = _question(record.content)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            question = None
        if question is None or not 0 <= question.right < len(question.choices):
            raise TrainingRowError(
                f"{path} row {record.number}: no question of a known form; MMLU's has question, choices and "
                "answer"
            )
        found.append(question)
    return found


def _headerless(path: Path) -> list[ChoiceQuestion]:
    """MMLU's own CSV: question, four choices, a letter, and no header; empty for a file with one."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or not all(len(row) == 6 and row[5].strip() in tuple("ABCD") for row in rows):
        return []
    return [ChoiceQuestion(row[0], tuple(row[1:5]), "ABCD".index(row[5].strip())) for row in rows]


def _question(row: Mapping[str, Any]) -> ChoiceQuestion | None:
    if "goal" in row:
        return ChoiceQuestion(
            f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"])
        )
    if "endings" in row:
        return ChoiceQuestion(row["ctx"], tuple(row["endings"]), int(row["label"]))
    if "sentence" in row:
        before, blank, after = row["sentence"].partition("_")
        if not blank:
            return None
        options = (row["option1"], row["option2"])
        begin = tuple(f"{before}{option}" for option in options)
        return ChoiceQuestion("", (after.strip(),) * 2, int(row["answer"]) - 1, begin)
    if "passage" in row:
        asked = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        right = (
            row["answer"] if isinstance(row["answer"], bool) else str(row["answer"]).lower() in ("true", "1")
        )
        return ChoiceQuestion(asked, ("no", "yes"), int(right))
    if "answerA" in row:
        asked = f"{row['context']}\nQuestion: {row['question']}\nAnswer:"
        return ChoiceQuestion(asked, tuple(row[f"answer{each}"] for each in "ABC"), int(row["label"]) - 1)
    return _listed(row)


def _listed(row: Mapping[str, Any]) -> ChoiceQuestion:
    """MMLU, ARC, CommonsenseQA and OpenBookQA: a question, a list of choices, and which is right."""
    asked: Any = row.get("question_stem", row.get("question"))
    choices: Any = row.get("choices")
    if isinstance(asked, Mapping):
        asked, choices = asked["stem"], asked["choices"]
    if isinstance(choices, Mapping):  # the hub's form: lists side by side
        choices = [
            {"text": text, "label": label}
            for text, label in zip(choices["text"], choices["label"], strict=True)
        ]
    answer = row["answerKey"] if "answerKey" in row else row["answer"]
    if isinstance(choices[0], Mapping):
        labels = [str(each["label"]) for each in choices]
        texts = tuple(str(each["text"]) for each in choices)
        return ChoiceQuestion(str(asked), texts, labels.index(str(answer)))
    texts = tuple(map(str, choices))
    place = LETTERS.index(answer) if isinstance(answer, str) and answer in LETTERS else int(answer)
    return ChoiceQuestion(str(asked), texts, place)


def prompts_of(
    question: ChoiceQuestion, *, style: str, examples: Sequence[ChoiceQuestion] = (), subject: str = ""
) -> list[tuple[str, str]]:
    """For each choice the prompt and the answer whose likelihood is asked for."""
    if style == "letters":
        if len(question.choices) > len(LETTERS) or question.begin:
            raise ConfigError("letters need questions with at most ten choices, asked as a list")
        about = f" about {subject}" if subject else ""
        head = f"The following are multiple choice questions (with answers){about}.\n\n"
        shown = [f"{_listing(each)} {LETTERS[each.right]}\n\n" for each in examples]
        prompt = "".join([head, *shown, _listing(question)])
        return [(prompt, f" {LETTERS[place]}") for place in range(len(question.choices))]
    shown = [f"{_beginning(each, each.right)} {each.choices[each.right]}\n\n" for each in examples]
    return [
        ("".join([*shown, _beginning(question, place)]), f" {choice.strip()}")
        for place, choice in enumerate(question.choices)
    ]


def _beginning(question: ChoiceQuestion, place: int) -> str:
    if question.begin:
        return question.begin[place]
    text = question.text.rstrip()
    is_bare = text.endswith("?") and "\nAnswer:" not in text
    return f"Question: {text}\nAnswer:" if is_bare else text


def _listing(question: ChoiceQuestion) -> str:
    lines = [f"{LETTERS[place]}. {choice}" for place, choice in enumerate(question.choices)]
    return "\n".join([question.text.strip(), *lines, "Answer:"])


def ask(
    model: Any,
    tokenizer: Any,
    questions: Sequence[ChoiceQuestion],
    *,
    style: str = "texts",
    examples: Sequence[ChoiceQuestion] = (),
    shots: int = 0,
    subject: str = "",
) -> ChoiceAccuracy:
    """Asks a causal or encoder-decoder model; each question comes after the first ``shots`` of the examples.

    Raises ConfigError for an unknown style and for fewer examples than shots.
    """
    if style not in STYLES:
        raise ConfigError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if shots > len(examples):
        raise ConfigError(f"{shots} shots need as many examples, got {len(examples)}: name a file of them")
    asked = [prompts_of(each, style=style, examples=examples[:shots], subject=subject) for each in questions]
    scores = iter(_log_likelihoods(model, tokenizer, [pair for pairs in asked for pair in pairs]))
    right = right_by_length = 0
    for question, pairs in zip(questions, asked, strict=True):
        found = [next(scores) for _ in pairs]
        right += _best(found) == question.right
        lengths = [max(1, len(answer.strip())) for _, answer in pairs]
        by_length = [score / length for score, length in zip(found, lengths, strict=True)]
        right_by_length += _best(by_length) == question.right
    n = len(questions)
    per_character = wilson_rate(right_by_length, n) if style == "texts" else None
    return ChoiceAccuracy(wilson_rate(right, n), per_character, shots, style)


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda place: scores[place])


@torch.no_grad()
def _log_likelihoods(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The log-likelihood in nats of each answer after its prompt."""
    network = TargetLoss(model, pad_id=tokenizer.pad_token_id, dtype=torch.float32).eval()
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def ids(text: str) -> list[int]:
        # Control tokens that occur in a text are split into ordinary pieces.
        found: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return found

    read = [
        EncodedExample(
            prompt=tuple([*start, *ids(prompt)] or [tokenizer.eos_token_id]), target=tuple(ids(answer))
        )
        for prompt, answer in pairs
    ]
    found = [0.0] * len(read)
    order = sorted(range(len(read)), key=lambda place: len(read[place]))
    for begin in range(0, len(order), BATCH):
        places = order[begin : begin + BATCH]
        nats = network.of_each([read[place] for place in places]).tolist()
        for place, value in zip(places, nats, strict=True):
            found[place] = -value
    return found
