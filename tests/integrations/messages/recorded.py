"""Streams of the Messages API as its documentation has them, event by event."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.integrations.server.running import CLEAN, TOXIC

Event = dict[str, Any]
SENTENCES = f"{CLEAN} {TOXIC} It may rain later, they say."
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds" * 5
REQUEST: Event = {
    "model": "small-1",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello, idiot"}],
    "stop_sequences": ["idiot"],
}
USAGE = {"input_tokens": 25, "output_tokens": 15, "cache_read_input_tokens": 0, "service_tier": "standard"}


def text(words: str, citations: Sequence[Event] | None = None) -> Event:
    return {"type": "text", "text": words} | ({"citations": list(citations)} if citations else {})


def thinking(words: str) -> Event:
    return {"type": "thinking", "thinking": words, "signature": SIGNATURE}


def tool_use(arguments: Event, number: int = 1, kind: str = "tool_use") -> Event:
    return {
        "type": kind,
        "id": f"toolu_01T1x1fJ34qAmk2tNTrN7Up{number}",
        "name": "send_reply",
        "input": arguments,
    }


def citation(quoted: str = "The sky is blue.") -> Event:
    return {
        "type": "char_location",
        "cited_text": quoted,
        "document_index": 0,
        "document_title": "Weather",
        "start_char_index": 0,
        "end_char_index": 16,
    }


def search_result(title: str = "Weather today") -> Event:
    found = {
        "type": "web_search_result",
        "title": title,
        "url": "https://weather.example/today",
        "encrypted_content": SIGNATURE,
        "page_age": None,
    }
    return {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_014hJH82Qum7Td6UV8gDXThB",
        "content": [found],
    }


def message(*blocks: Event, reason: str = "end_turn", sequence: str | None = None) -> Event:
    """A whole message."""
    return {
        "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
        "type": "message",
        "role": "assistant",
        "content": list(blocks),
        "model": "small-1-20250929",
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": USAGE,
    }


def cut(words: str) -> list[str]:
    """The text in pieces, as tokens come."""
    return re.findall(r"\s*\w+|\s*[^\w\s]+|\s+", words)


def block_events(index: int, block: Event) -> list[Event]:
    """The events in which a block comes."""
    deltas: list[Event] = []
    begun = block
    if block["type"] == "text":
        begun = block | {"text": ""} | ({"citations": []} if "citations" in block else {})
        deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
        deltas += [{"type": "citations_delta", "citation": each} for each in block.get("citations", ())]
    elif block["type"] == "thinking":
        begun = block | {"thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif "input" in block:
        begun = block | {"input": {}}
        pieces = ["", *cut(json.dumps(block["input"]))]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def stream(whole: Event) -> list[Event]:
    """The events in which a message comes."""
    begun = whole | {"content": [], "stop_reason": None, "stop_sequence": None}
    begun |= {"usage": USAGE | {"output_tokens": 1}}
    inner = [event for index, block in enumerate(whole["content"]) for event in block_events(index, block)]
    ended = {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    return [
        {"type": "message_start", "message": begun},
        {"type": "ping"},
        *inner,
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 15}},
        {"type": "message_stop"},
    ]


RECORDED: dict[str, Event] = {
    "text": message(text(SENTENCES)),
    "thinking": message(thinking(f"{TOXIC} {CLEAN}"), text(CLEAN)),
    "redacted thinking": message({"type": "redacted_thinking", "data": SIGNATURE}, text(TOXIC)),
    "tool use": message(text(f"I will write. {TOXIC}"), tool_use({"text": "Hello"}), reason="tool_use"),
    "two tools": message(tool_use({"text": "Hello"}), tool_use({}, 2), reason="tool_use"),
    "thinking and tool": message(thinking(TOXIC), tool_use({"to": ["a", "b"]}), reason="tool_use"),
    "web search": message(
        tool_use({"query": "weather"}, 3, "server_tool_use"), search_result(), text(SENTENCES, [citation()])
    ),
    "cited blocks": message(text("You are an "), text(f"idiot. {CLEAN}", [citation()]), text(f" {TOXIC}")),
    "stop sequence": message(text(f"{CLEAN} {TOXIC}"), reason="stop_sequence", sequence="idiot"),
    "max tokens": message(text(f"{TOXIC}\n\n- {TOXIC}\n- And then the dri"), reason="max_tokens"),
}
"""Ten messages, whole. None has a text that must be blocked."""
