"""What of a chat model's answer is taken for the rewrite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.rewriters.chat_answers import candidate_of

TEXT = "You stupid idiot, the parcel is late."
REWRITE = "The parcel is late."


@pytest.mark.parametrize(
    "answer",
    [
        REWRITE,
        f"  {REWRITE}\n\n",
        f'"{REWRITE}"',
        f"“{REWRITE}”",
        f"„{REWRITE}“",
        f"'{REWRITE}'",
        f"`{REWRITE}`",
        f"**{REWRITE}**",
        f"Here is the rewrite: {REWRITE}",
        f"Here's a more polite version of the text:\n\n{REWRITE}",
        f'Sure! Here is the rewritten text:\n\n"{REWRITE}"',
        f"Sure!\n\n{REWRITE}",
        f"Of course! Here’s a neutral version:\n{REWRITE}",
        f"Rewritten text: {REWRITE}",
        f"**Rewritten text:** {REWRITE}",
        f"**Revised version**: {REWRITE}",
        f"Output: {REWRITE}",
        f"```\n{REWRITE}\n```",
        f"```text\n{REWRITE}\n```",
        f"Here it is:\n~~~\n{REWRITE}\n~~~\nLet me know if you want another.",
        f"{REWRITE}\n\nNote: I removed the insult.",
        f"{REWRITE}\n(I removed the insult.)",
        f"{REWRITE}\n\n*This version keeps the facts.*",
        f"<think>An insult. Remove it.</think>\n\n{REWRITE}",
        f"An insult. Remove it.</think>\n\n{REWRITE}",
        f"<thinking>One.</thinking><think>Two.</think>{REWRITE}",
        f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{REWRITE}",
        f"{REWRITE}<|im_end|>",
        f"{REWRITE}</s>",
        f"{REWRITE} <|eot_id|><end_of_turn>\n",
        f'<think>Hm.</think>Sure! Here is the rewrite:\n```\n"{REWRITE}"\n```\n\nNote: shorter.<|im_end|>',
    ],
)
def test_the_rewrite_is_taken_out_of_its_wrappings(answer: str) -> None:
    assert candidate_of(answer, text=TEXT) == REWRITE


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        '""',
        "<think>This never comes to an end",
        f"<think>{REWRITE}</think>",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I cannot rewrite this text.",
        "I cannot fulfill this request.",
        "I am unable to help with that.",
        "I won't repeat that.",
        "As an AI language model, I do not have feelings.",
        "I am just an AI, and this is hateful.",
        "word " * 1000,
        "half a character \ud83d",
    ],
)
def test_no_rewrite_and_a_refusal_are_no_candidate(answer: str) -> None:
    assert candidate_of(answer, text=TEXT) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("You moron, I cannot support this any more.", "I cannot support this any more."),
        ("I'm sorry but I can't help an idiot.", "I'm sorry but I can't help this person."),
        ("Damned result: 3 errors.", "Result: 3 errors."),
        ("Here is the thing: you are dumb.", "Here is the thing: you are mistaken."),
        ('"You idiot"', '"You are wrong"'),
        ('"Go," said the moron, "now"', '"Go," said the man, "now"'),
        ("**You idiot**", "**You are wrong**"),
        ("Sure\nyou idiot", "Sure\nyou are wrong"),
        ("Run this crap:\n```\nls\n```", "Run this:\n```\nls\n```"),
        ("That is crap.\nNote: idiots.", "That is bad.\nNote: people."),
        (TEXT, 'The "parcel" is "late"'),
    ],
)
def test_what_the_text_has_itself_stays(text: str, answer: str) -> None:
    assert candidate_of(answer, text=text) == answer


PIECES = [
    "<think>",
    "</think>",
    "```",
    "\n",
    '"',
    "**",
    "Here is the rewrite:",
    "Sure!",
    "Note: x",
    "word",
    " ",
    "I'm sorry, I can't",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from([TEXT, '"x"', "a\nb"]))
def test_a_candidate_is_a_part_of_the_answer_and_is_taken_from_itself_whole(answer: str, text: str) -> None:
    found = candidate_of(answer, text=text)
    if found is not None:
        assert found in answer
        assert found == found.strip() != ""


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "```\n", "Sure! ", "<|a|>", " ", '"', "\n", "Here is "]
)
def test_long_answers_take_no_longer_than_reading_them(piece: str) -> None:
    candidate_of(piece * (2_000_000 // len(piece)), text=TEXT)
