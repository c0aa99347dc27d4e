"""docs/frameworks.md: its blocks run with the real packages, its versions are those that are installed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.server.running import Upstream, delta, events
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
REQUIREMENTS = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", REQUIREMENTS, re.MULTILINE))
TEXT = f"{CLEAN} {TOXIC}"
SHOWN = f"{CLEAN} {NEUTRAL}"


def needs(module: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: make test-frameworks")


def run(name: str, **given: Any) -> dict[str, Any]:
    """The names that a section's block leaves, run with these."""
    section = DOCUMENT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    names: dict[str, Any] = {"guard": guard(), **given}
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        exec(compile(block, name, "exec"), names)  # noqa: S102  # the document is ours
    return names


def words(question: str = "") -> Iterator[str]:
    for word in TEXT.split(" "):
        yield f"{word} "


async def awords(question: str) -> AsyncIterator[str]:
    for word in words():
        yield word


def test_the_table_names_the_versions_that_are_pinned() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([\w-]+) ([\d.]+) \|", DOCUMENT, re.MULTILINE)
    assert len(rows) == 12
    assert {name: PINS[name] for name, _ in rows} == dict(rows)


def test_every_framework_has_a_section() -> None:
    names = re.findall(r"^\| ([^|]+) \| [\w-]+ [\d.]+ \|", DOCUMENT, re.MULTILINE)
    assert names == re.findall(r"^## (.+)$", DOCUMENT, re.MULTILINE)


def test_the_pinned_versions_are_the_installed_ones() -> None:
    needs("smolagents")
    assert {name: version(name) for name in PINS} == PINS


def test_openai_agents(capsys: pytest.CaptureFixture[str]) -> None:
    needs("agents")
    from agents.testing import ScriptedModel, assistant_message

    run("OpenAI Agents SDK", model=ScriptedModel([[assistant_message(TEXT)]]))
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_pydantic_ai(capsys: pytest.CaptureFixture[str]) -> None:
    needs("pydantic_ai")
    from pydantic_ai.models.test import TestModel

    run("Pydantic AI", model=TestModel(custom_output_text=TEXT))
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_litellm(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    needs("litellm")
    pieces = [delta(word) for word in words()]
    upstream.reply = lambda asked: events([*pieces, delta(reason="stop"), "[DONE]"])
    run("LiteLLM", url=f"{upstream.url}/v1", messages=[{"role": "user", "content": "Who drives?"}])
    assert capsys.readouterr().out.strip() == SHOWN


def test_llama_index(capsys: pytest.CaptureFixture[str]) -> None:
    needs("llama_index.core")
    from llama_index.core.llms import ChatMessage, MockLLM

    run("LlamaIndex", llm=MockLLM(), question=TEXT)
    assert capsys.readouterr().out == f"{SHOWN}\n{SHOWN}"
    asked = [ChatMessage(role="user", content=TEXT)]
    assert NEUTRAL in str(guard().wrap(MockLLM().chat)(asked).message.content)
    assert "idiot" not in repr(list(guard().wrap(MockLLM().stream_chat)(asked)))


def test_a_query_engine_of_llama_index() -> None:
    needs("llama_index.core")
    from llama_index.core.base.response.schema import Response
    from llama_index.core.query_engine import CustomQueryEngine

    class Engine(CustomQueryEngine):
        def custom_query(self, query_str: str) -> Response:
            return Response(response=TEXT)

    assert guard().wrap(Engine().query, paths=["response"])("Who drives?").response == SHOWN


def test_haystack(capsys: pytest.CaptureFixture[str]) -> None:
    needs("haystack")
    from haystack.components.generators.chat import MockChatGenerator

    made = run("Haystack", generator=MockChatGenerator(TEXT))
    assert made["answer"]["replies"][0].text == capsys.readouterr().out == SHOWN


def test_dspy(capsys: pytest.CaptureFixture[str]) -> None:
    needs("dspy")
    import dspy
    from dspy.utils.dummies import DummyLM

    with dspy.context(lm=DummyLM([{"answer": TEXT}])):
        run("DSPy")
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_smolagents(capsys: pytest.CaptureFixture[str]) -> None:
    needs("smolagents")
    from smolagents import LogLevel, ToolCallingAgent
    from smolagents.models import (
        ChatMessage,
        ChatMessageStreamDelta,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        ChatMessageToolCallStreamDelta,
        MessageRole,
        Model,
    )

    def function(arguments: Any) -> ChatMessageToolCallFunction:
        return ChatMessageToolCallFunction(name="final_answer", arguments=arguments)

    class Scripted(Model):
        def generate(self, messages: Any, **options: Any) -> ChatMessage:
            call = ChatMessageToolCall(function({"answer": TEXT}), id="c1", type="function")
            return ChatMessage(MessageRole.ASSISTANT, TEXT, [call])

        def generate_stream(self, messages: Any, **options: Any) -> Iterator[ChatMessageStreamDelta]:
            yield from (ChatMessageStreamDelta(word) for word in words())
            arguments = json.dumps({"answer": TEXT})
            call = ChatMessageToolCallStreamDelta(0, id="c1", type="function", function=function(arguments))
            yield ChatMessageStreamDelta("", [call])

    agent = ToolCallingAgent([], Scripted(), stream_outputs=True, verbosity_level=LogLevel.OFF)
    run("smolagents", agent=agent)
    printed = capsys.readouterr().out  # what the model says among it, which smolagents shows itself
    assert "".join(printed.split()).count("".join(SHOWN.split())) == 2


def test_autogen(capsys: pytest.CaptureFixture[str]) -> None:
    needs("autogen_ext")
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.replay import ReplayChatCompletionClient

    client = ReplayChatCompletionClient([TEXT, TEXT])
    run("AutoGen", agent=AssistantAgent("helper", client, model_client_stream=True))
    assert capsys.readouterr().out.strip() == f"{SHOWN}\n{SHOWN}"


def test_gradio() -> None:
    needs("gradio")
    made = run("Gradio", words=words)
    shown = list(made["demo"].fn("Who drives?", []) if callable(made["demo"].fn) else ())
    shown = shown or list(made["reply"]("Who drives?", []))
    assert shown[-1].strip() == SHOWN
    assert "idiot" not in "".join(shown)


def test_streamlit() -> None:
    needs("streamlit")
    from streamlit.testing.v1 import AppTest

    section = DOCUMENT.partition("\n## Streamlit\n")[2].partition("```python\n")[2].partition("```")[0]
    head = "from tests.frameworks.test_documents import words\nfrom tests.streaming import guard as make\n"
    app = AppTest.from_string(f"{head}guard = make()\n{section}").run(timeout=60)
    assert not app.exception
    assert app.markdown[0].value.strip() == SHOWN


def test_fastapi() -> None:
    needs("fastapi")
    from fastapi.testclient import TestClient

    app = run("FastAPI", awords=awords)["app"]
    assert TestClient(app).get("/answer", params={"question": "Who drives?"}).text.strip() == SHOWN


def test_mcp() -> None:
    needs("mcp.client.client")
    from mcp.client.client import Client
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("weather")

    @server.tool(structured_output=False)
    def gossip(place: str) -> str:
        """Of another's server."""
        return TEXT

    made = run("MCP", server=server, said_of=lambda place: TEXT)

    async def ask() -> list[str]:
        async with Client(server) as client:
            results = [await client.call_tool("weather", {"place": "Graz"}), await made["call"](client)]
            assert "idiot" not in repr(results)
            return [result.content[0].text for result in results]

    assert asyncio.run(ask()) == [SHOWN, SHOWN]


ADAPTERS = {
    "openai_agents": ("agents", "openai-agents"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai-slim"),
    "litellm": ("litellm", "litellm"),
    "haystack": ("haystack", "haystack-ai"),
    "dspy": ("dspy", "dspy"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_without_its_framework_names_the_package(name: str) -> None:
    import importlib

    module, package = ADAPTERS[name]
    if find_spec(module) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(Exception, match=f"pip install '?{re.escape(package)}"):
        importlib.import_module(f"guardrail.integrations.{name}")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_one_file_of_at_most_150_lines(name: str) -> None:
    path = ROOT / "guardrail" / "integrations" / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


EXAMPLES = {"openai_agents": "agents", "pydantic_ai_agent": "pydantic_ai", "haystack_pipeline": "haystack"}
EXAMPLES |= {"dspy_program": "dspy"}


def test_every_example_is_among_those_that_are_run() -> None:
    assert {path.stem for path in (ROOT / "examples" / "frameworks").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_shows_nothing_rude(name: str) -> None:
    needs(EXAMPLES[name])
    command = [sys.executable, ROOT / "examples" / "frameworks" / f"{name}.py"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "The parcel left Graz on Monday." in done.stdout
    assert "stupid" not in done.stdout


def test_the_example_for_litellm_is_that_of_the_document() -> None:
    example = (ROOT / "examples" / "frameworks" / "litellm.yaml").read_text(encoding="utf-8")
    block = DOCUMENT.partition("```yaml\n")[2].partition("```")[0]
    assert block in example
