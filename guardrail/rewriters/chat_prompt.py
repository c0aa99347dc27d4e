"""The messages in which a chat model is asked for a rewrite: data, from a file of TOML or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.models.files import read_toml

__all__ = ["ChatPrompt", "Message"]

DEFAULT = Path(__file__).with_name("chat_prompt.toml")
ROLES = ("system", "developer", "user", "assistant")
SLOT = "{text}"
# What servers of open models read as the end of a turn, or of a thought, wherever it stands.
_CONTROL = re.compile(
    r"<\|[^<>\n]{1,64}\|>"
    r"|<｜[^<>\n]{1,64}｜>"
    r"|</?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn|system|user|assistant)>"
    r"|<</?SYS>>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages of which exactly one, a user's, has one ``{text}``; ConfigError for any other.

    The text is data: it takes the place of ``{text}``, and nothing is ever formatted. A control token in it
    is split by a space, so that it is ordinary text for the server, too; ``restored`` undoes that in answers.
    """

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        for message in self.messages:
            if message.role not in ROLES:
                raise ConfigError(f"a prompt's role must be one of {', '.join(ROLES)}, got {message.role!r}")
        roles = [message.role for message in self.messages for _ in range(message.content.count(SLOT))]
        if roles != ["user"]:
            raise ConfigError(
                f"a prompt needs {SLOT} exactly once, in a message of the user; this one has it "
                f"{len(roles)} times{f', in messages of {sorted(set(roles))}' if roles else ''}"
            )

    @classmethod
    def load(cls, path: str | Path | None = None) -> ChatPrompt:
        """The prompt of a file, ``.toml`` or ``.json``; without one the prompt that is made for chat models.

        Raises ConfigError if the file is missing or has another shape, and names it.
        """
        path = DEFAULT if path is None else Path(path).expanduser()
        try:
            return cls.of(_read_json(path) if path.suffix == ".json" else read_toml(path))
        except ConfigError as error:
            message = str(error)
            raise ConfigError(message if str(path) in message else f"{path}: {message}") from None

    @classmethod
    def of(cls, content: object) -> ChatPrompt:
        """The prompt of decoded TOML or JSON: ``messages``, each with ``role`` and ``content``."""
        messages = (
            content["messages"] if isinstance(content, Mapping) and set(content) == {"messages"} else None
        )
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise ConfigError("a prompt has one key, messages: a list of messages with role and content")
        return cls(tuple(_message(each, number) for number, each in enumerate(messages, 1)))

    def filled(self, text: str) -> list[dict[str, str]]:
        """The messages about one text, as a chat completion takes them."""
        split = _CONTROL.sub(_split, text)
        return [
            {"role": message.role, "content": split.join(message.content.split(SLOT))}
            for message in self.messages
        ]

    @staticmethod
    def restored(answer: str, *, text: str) -> str:
        """The answer with the text's own control tokens as they were."""
        for match in _CONTROL.finditer(text):
            answer = answer.replace(_split(match), match.group())
        return answer


def _split(match: re.Match[str]) -> str:
    token = match.group()
    return f"{token[0]} {_CONTROL.sub(_split, token[1:])}"  # one may stand inside another


def _message(value: Any, number: int) -> Message:
    if not isinstance(value, Mapping) or set(value) != {"role", "content"}:
        raise ConfigError(f"message {number} must have role and content, and nothing else")
    if not all(isinstance(part, str) for part in value.values()):
        raise ConfigError(f"role and content of message {number} must be strings")
    return Message(value["role"], value["content"])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON in UTF-8") from error
