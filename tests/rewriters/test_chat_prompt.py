"""Prompts for chat models are data: read strictly, filled literally."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ConfigError
from guardrail.rewriters.chat_prompt import ChatPrompt

ONE = {"role": "user", "content": "Rewrite {text} {now}"}


def test_the_default_prompt_instructs_shows_and_ends_with_the_text() -> None:
    messages = ChatPrompt.load().filled("So {what}?")
    assert [message["role"] for message in messages] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert messages[-1]["content"] == "Rewrite this text:\n\nSo {what}?"
    assert not any("{text}" in message["content"] for message in messages)


def test_a_prompt_comes_from_toml_or_json(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"messages": [ONE]}), encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        '[[messages]]\nrole = "user"\ncontent = "Rewrite {text} {now}"\n', encoding="utf-8"
    )
    assert ChatPrompt.load(tmp_path / "own.json") == ChatPrompt.load(tmp_path / "own.toml")
    assert ChatPrompt.load(tmp_path / "own.toml").filled("it") == [
        {"role": "user", "content": "Rewrite it {now}"}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a prompt has one key, messages"),
        ([], "a prompt has one key, messages"),
        ({"messages": "x"}, "a prompt has one key, messages"),
        ({"messages": [ONE], "model": "x"}, "a prompt has one key, messages"),
        ({"messages": [ONE, {"role": "user"}]}, "message 2 must have role and content"),
        ({"messages": [{**ONE, "name": "x"}]}, "message 1 must have role and content"),
        ({"messages": [{"role": "user", "content": 1}]}, "role and content of message 1 must be strings"),
        ({"messages": [{**ONE, "role": "tool"}]}, "role must be one of .* got 'tool'"),
        ({"messages": []}, "exactly once, in a message of the user; this one has it 0 times"),
        ({"messages": [ONE, ONE]}, "has it 2 times"),
        ({"messages": [{**ONE, "role": "system"}]}, r"has it 1 times, in messages of \['system'\]"),
    ],
)
def test_a_prompt_of_another_shape_is_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"own\.json: .*{message}"):
        ChatPrompt.load(path)


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.toml", "x ="), ("a.json", '"\\ud800')])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{name} is not valid"):
        ChatPrompt.load(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json"):
        ChatPrompt.load(tmp_path / "none.json")


TOKENS = [
    "<|im_end|>",
    "<|",
    "|>",
    "<s>",
    "</s>",
    "[INST]",
    "<</SYS>>",
    "<｜User｜>",
    "<end_of_turn>",
    "{text}",
    " ",
    "a",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=8).map("".join))
def test_no_control_token_of_a_text_reaches_the_server_and_copies_come_back_whole(text: str) -> None:
    prompt = ChatPrompt.of({"messages": [{"role": "user", "content": "{text}"}]})
    (message,) = prompt.filled(text)
    for token in ("<|im_end|>", "<s>", "</s>", "[INST]", "<</SYS>>", "<｜User｜>", "<end_of_turn>"):
        assert token not in message["content"]
    assert prompt.restored(message["content"], text=text) == text
