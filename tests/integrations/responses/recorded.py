"""Streams of the Responses API as its documentation has them, event by event."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.integrations.server.running import CLEAN, TOXIC

Event = dict[str, Any]
RESPONSE: Event = {
    "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    "object": "response",
    "created_at": 1741476542,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": "Never call anyone an idiot.",
    "max_output_tokens": None,
    "model": "gpt-4.1-2025-04-14",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": "resp_57bbd2bed1ec8190b14f964abc0542670bb6a6b452d3795c",
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
    "metadata": {"ticket": "He said I am an idiot"},
}
REQUEST: Event = {
    "model": "gpt-4.1",
    "input": "Hello",
    "instructions": "Never call anyone an idiot.",
    "previous_response_id": "resp_57bbd2bed1ec8190b14f964abc0542670bb6a6b452d3795c",
    "metadata": {"ticket": "He said I am an idiot"},
}
USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 123,
}


def cut(text: str) -> list[str]:
    """The text in pieces, as tokens come."""
    return re.findall(r"\s*\w+|\s*[^\w\s]+|\s+", text)


def text_part(text: str, annotations: Sequence[Event] = ()) -> Event:
    return {"type": "output_text", "text": text, "annotations": list(annotations)}


def message(*parts: Event, number: int = 1, status: str = "completed") -> Event:
    return {
        "id": f"msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795{number}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": list(parts),
    }


def reasoning(summary: Sequence[str], content: Sequence[str] = ()) -> Event:
    item: Event = {
        "id": "rs_6876cf02e0bc8192b74af0fb64b715ff06fa2fcced15a5ac",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "encrypted_content": "gAAAAABoISQ24OyVRYbkYfukdJoqdzWT" * 8,
    }
    return item | ({"content": [{"type": "reasoning_text", "text": t} for t in content]} if content else {})


def call(arguments: str, number: int = 1) -> Event:
    return {
        "id": f"fc_67ca09c6bedc8190a7abfec07b1a1332096610f474011cc{number}",
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": f"call_unLAR8MvFNptuiZK6K6HCy5{number}",
        "name": "send_reply",
    }


def item_events(index: int, item: Event) -> list[Event]:
    """The events in which an item comes."""
    make: Callable[[int, Event], list[Event]] = MAKERS.get(item["type"], lambda index, item: [])
    emptied = {"content": [], "summary": []}
    begun = item | {name: value for name, value in emptied.items() if name in item}
    begun |= {"status": "in_progress"} if "status" in item else {}
    begun |= {"arguments": ""} if "arguments" in item else {}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        *make(index, item),
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _message_events(index: int, item: Event) -> list[Event]:
    found: list[Event] = []
    for position, part in enumerate(item["content"]):
        place = {"item_id": item["id"], "output_index": index, "content_index": position}
        name = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}[part["type"]]
        kind, text = part["type"], part[name]
        empty = part | {name: ""} | ({"annotations": []} if "annotations" in part else {})
        logprobs: Event = {"logprobs": []} if kind == "output_text" else {}
        found.append({"type": "response.content_part.added", **place, "part": empty})
        found += [
            {"type": f"response.{kind}.delta", **place, "delta": piece, **logprobs} for piece in cut(text)
        ]
        found += [
            {
                "type": "response.output_text.annotation.added",
                **place,
                "annotation_index": number,
                "annotation": annotation,
            }
            for number, annotation in enumerate(part.get("annotations", ()))
        ]
        found.append({"type": f"response.{kind}.done", **place, name: text, **logprobs})
        found.append({"type": "response.content_part.done", **place, "part": part})
    return found


def _reasoning_events(index: int, item: Event) -> list[Event]:
    found: list[Event] = []
    for position, part in enumerate(item["summary"]):
        place = {"item_id": item["id"], "output_index": index, "summary_index": position}
        begins = "response.reasoning_summary"
        found.append({"type": f"{begins}_part.added", **place, "part": part | {"text": ""}})
        found += [{"type": f"{begins}_text.delta", **place, "delta": piece} for piece in cut(part["text"])]
        found.append({"type": f"{begins}_text.done", **place, "text": part["text"]})
        found.append({"type": f"{begins}_part.done", **place, "part": part})
    return found + _message_events(index, item | {"content": item.get("content", [])})


def _call_events(index: int, item: Event) -> list[Event]:
    place = {"item_id": item["id"], "output_index": index}
    begins = "response.function_call_arguments"
    pieces = [{"type": f"{begins}.delta", **place, "delta": piece} for piece in cut(item["arguments"])]
    return [*pieces, {"type": f"{begins}.done", **place, "arguments": item["arguments"]}]


def _search_events(index: int, item: Event) -> list[Event]:
    steps = ("in_progress", "searching", "completed")
    place = {"item_id": item["id"], "output_index": index}
    return [{"type": f"response.web_search_call.{step}", **place} for step in steps]


def _code_events(index: int, item: Event) -> list[Event]:
    place = {"item_id": item["id"], "output_index": index}
    begins = "response.code_interpreter_call"
    pieces = [{"type": f"{begins}_code.delta", **place, "delta": piece} for piece in cut(item["code"])]
    return [
        {"type": f"{begins}.in_progress", **place},
        *pieces,
        {"type": f"{begins}_code.done", **place, "code": item["code"]},
        {"type": f"{begins}.interpreting", **place},
        {"type": f"{begins}.completed", **place},
    ]


MAKERS: dict[str, Callable[[int, Event], list[Event]]] = {
    "message": _message_events,
    "reasoning": _reasoning_events,
    "function_call": _call_events,
    "web_search_call": _search_events,
    "code_interpreter_call": _code_events,
}


def response(*items: Event, status: str = "completed", **fields: Any) -> Event:
    """A whole response."""
    return RESPONSE | {"status": status, "output": list(items), "usage": USAGE} | fields


def numbered(events: Sequence[Event]) -> list[Event]:
    """The events with their numbers."""
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def stream(whole: Event) -> list[Event]:
    """The events in which a response comes."""
    inner = [event for index, item in enumerate(whole["output"]) for event in item_events(index, item)]
    begun = RESPONSE | {key: whole[key] for key in ("text",) if key in whole}
    return numbered(
        [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            *inner,
            {"type": f"response.{whole['status']}", "response": whole},
        ]
    )


SEARCH = {
    "id": "ws_67ccf18f64008190a39b619f4c8455ef087bb177ab789d5c",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "weather valley today", "sources": []},
}
CODE = {
    "id": "ci_68f7d1a0b4d8819088e2d3c8a7b5f1e20a1b2c3d4e5f6071",
    "type": "code_interpreter_call",
    "status": "completed",
    "code": "total = sum([1, 2, 3])\nprint(total)",
    "container_id": "cntr_68f7d19f3a848190a1b2c3d4e5f60718293a4b5c6d7e8f90",
    "outputs": None,
}
SENTENCES = f"{CLEAN} {TOXIC} It may rain later, they say."
URL = "https://weather.example/today"


def citation(text: str, quoted: str, title: str = "Weather") -> Event:
    """An annotation of some words of a text."""
    start = text.index(quoted)
    return {
        "type": "url_citation",
        "start_index": start,
        "end_index": start + len(quoted),
        "url": URL,
        "title": title,
    }


CITED = text_part(
    SENTENCES, [citation(SENTENCES, word) for word in ("valley", "that bus is an idiot", "rain")]
)
REFUSED = {"type": "refusal", "refusal": f"I cannot help with that. {TOXIC}"}
RECORDED: dict[str, Event] = {
    "text": response(message(text_part(SENTENCES))),
    "refusal": response(message(REFUSED)),
    "reasoning summary": response(
        reasoning([f"**Thinking**\n\n{TOXIC}", f"{CLEAN} {TOXIC}"]), message(text_part(CLEAN))
    ),
    "reasoning text": response(reasoning([], [SENTENCES]), message(text_part(SENTENCES))),
    "function calls": response(call('{"text": "Hello"}'), call('{"text": "Goodbye"}', 2)),
    "text and call": response(message(text_part(TOXIC)), call('{"text": "Hello"}')),
    "web search": response(SEARCH, message(CITED)),
    "code": response(CODE, message(text_part(f"The total is 6. {TOXIC}"))),
    "two parts": response(
        message(text_part("You are an "), text_part(f"idiot. {CLEAN}")), message(text_part(TOXIC), number=2)
    ),
    "incomplete": response(
        message(text_part(f"{TOXIC} And then the dri"), number=3, status="incomplete"),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
    ),
}
"""Ten responses, whole. None has a text that must be blocked."""
