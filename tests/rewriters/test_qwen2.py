"""A Qwen2 base: computed as transformers does, from safetensors and GGUF, and chosen by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail import Guard, models
from guardrail.config import Config
from guardrail.engine import plugins
from guardrail.errors import ConfigError, GuardrailWarning, UsageError
from guardrail.manifest import Manifest
from guardrail.models.sources import Member, Source, Wheel
from guardrail.models.tokenizer import read_tokenizer
from guardrail.models.weights import read_weights
from guardrail.rewriters.adapter import Adapter
from guardrail.rewriters.lora import LoraRewriter
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.opening import open_rewriter
from guardrail.rewriters.runtime.factors import factors_of
from guardrail.rewriters.runtime.session import MASKED, Runtime, Slots
from guardrail.rewriters.sampling import Decoding
from tests.models import gguf_files

torch = pytest.importorskip("torch")

DECODING = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=40)
SEGMENTS = ["You are a fool.", "Shut up", "What a stupid idea this was, and how badly it went!"]
TEXTS = ["You are a person.", "This is a fool", "Shut up"]


def test_logits_are_those_of_transformers(tiny_qwen2: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tiny_qwen2, dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen2ForCausalLM"
    ids = list(range(3, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    runtime = Runtime(lambda: read_weights(tiny_qwen2), positions=512, precision="float32", threads=1)
    nothing = Adapter(Manifest("adapter", "", "", "", {}, template="{text}"), scale=1.0, layers={})
    factors = factors_of(nothing, runtime.shape)
    seen = np.where(np.tri(len(ids), dtype=bool), np.float32(0), MASKED)
    places = range(len(ids))
    slots = Slots(runtime.shape, 64)
    found = runtime.read(factors, slots, ids, positions=places, bias=seen, picked=places, likeliest=5)
    np.testing.assert_allclose(found.logits, expected, atol=1e-3)


@pytest.mark.parametrize("rank", [1, 16, 64])
def test_likelihoods_under_an_adapter_are_those_of_torch(
    tiny_qwen2: Path, make_adapter: Any, rank: int
) -> None:
    adapter = make_adapter(seed=3, rank=rank, base=tiny_qwen2)
    mine = OnnxRewriter.load(
        adapter, base_folder=tiny_qwen2, decoding=DECODING, precision="float32", threads=1
    )
    theirs = LoraRewriter.load(adapter, base_folder=tiny_qwen2, decoding=DECODING)
    for segment in SEGMENTS:
        pairs = zip(mine.score(segment, TEXTS), theirs.score(segment, TEXTS), strict=True)
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_in_float32_candidates_are_those_of_torch(tiny_qwen2: Path, make_adapter: Any) -> None:
    adapter = make_adapter(seed=1, base=tiny_qwen2)
    mine = OnnxRewriter.load(
        adapter, base_folder=tiny_qwen2, decoding=DECODING, precision="float32", threads=1
    )
    theirs = LoraRewriter.load(adapter, base_folder=tiny_qwen2, decoding=DECODING)
    assert mine.rewrite(SEGMENTS, 4) == theirs.rewrite(SEGMENTS, 4)


def test_adapters_that_take_turns_write_what_each_writes_alone(tiny_qwen2: Path, make_adapter: Any) -> None:
    folders = [make_adapter(seed=seed, rank=rank, base=tiny_qwen2) for seed, rank in ((1, 4), (2, 64))]
    load = {"base_folder": tiny_qwen2, "decoding": DECODING, "threads": 1}
    alone = [OnnxRewriter.load(folder, **load).rewrite(SEGMENTS, 3) for folder in folders]
    one = OnnxRewriter.load(folders[0], **load)
    two = one.with_adapter(folders[1])
    for _ in range(2):
        assert [one.rewrite(SEGMENTS, 3), two.rewrite(SEGMENTS, 3)] == alone


@pytest.fixture
def gguf(tiny_qwen2: Path, tmp_path: Path, empty_cache: Path) -> Path:
    """The base as one GGUF file, pulled."""
    folder = tmp_path / "own"
    folder.mkdir()
    gguf_files.write_gguf(tiny_qwen2, folder / "tiny.gguf", kind="Q8_0")
    return models.pull(folder, progress=False)


def test_from_a_gguf_file_both_runtimes_write_the_same(gguf: Path, make_adapter: Any) -> None:
    identity = Manifest.load(gguf).trained_on
    adapter = make_adapter(seed=1, manifest={"trained_on": identity})
    mine = OnnxRewriter.load(adapter, base_folder=gguf, decoding=DECODING, precision="float32", threads=1)
    theirs = LoraRewriter.load(adapter, base_folder=gguf, decoding=DECODING)
    assert mine.rewrite(SEGMENTS, 3) == theirs.rewrite(SEGMENTS, 3)
    assert json.loads((models.for_torch(gguf) / "config.json").read_text())["model_type"] == "qwen2"
    assert isinstance(open_rewriter(adapter, base_folder=gguf), OnnxRewriter)


def test_text_is_split_and_composed_as_transformers_does_it_for_qwen2(
    tiny_qwen2: Path, tmp_path: Path
) -> None:
    from transformers import Qwen2Tokenizer

    metadata = gguf_files.metadata_of(tiny_qwen2) | {"tokenizer.ggml.pre": "qwen2"}
    (tmp_path / "m.gguf").write_bytes(gguf_files.gguf_bytes(metadata, {}))
    mine = read_tokenizer(tmp_path)
    vocabulary = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    theirs = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    texts = [
        "The user's 123 words:\n\n (detoxify)",
        "cafe\u0301 said",
        "I'LL  sit\t\r\n 5",
        "\u5317\u4eac nothing",
    ]
    for text in texts:
        ids = mine.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ids == theirs.encode(text, add_special_tokens=False)


# ---- chosen by the base's name


@pytest.fixture
def shipped(
    tiny_qwen2: Path, make_adapter: Any, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A package that knows the tiny base and ships an adapter for it; the cache is empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    shutil.copytree(models.SHIPPED / "rewriter", folder / "rewriter")
    shutil.copytree(make_adapter(seed=1, base=tiny_qwen2), folder / "adapter-tiny")
    identity = str(Manifest.load(tiny_qwen2).trained_on)
    member = Member("t/model.safetensors", (tiny_qwen2 / "model.safetensors").stat().st_size, identity)
    wheel = Wheel("tiny-model==1.0", "0" * 64, 1, (member,))
    known = Source(name="tiny", purpose="test", licence="MIT", wheels=(wheel,), identity=identity)
    monkeypatch.setattr(models, "SOURCES", {**models.SOURCES, "tiny": known})
    monkeypatch.setattr(models, "SHIPPED", folder)
    plugins._loaded_rewriter.cache_clear()
    plugins._warn_once.cache_clear()
    yield folder / "adapter-tiny"
    plugins._loaded_rewriter.cache_clear()
    plugins._warn_once.cache_clear()


@pytest.fixture
def fetched(shipped: Path, tiny_qwen2: Path, empty_cache: Path) -> Path:
    """The same with the base in the cache."""
    shutil.copytree(tiny_qwen2, empty_cache / "tiny")
    return shipped


def test_a_bases_name_chooses_the_shipped_adapter_for_it(fetched: Path, tiny_qwen2: Path) -> None:
    guard = Guard(rewriter="tiny")
    assert guard.load() == ()
    rewriter = plugins.shipped_rewriter("tiny")
    assert rewriter.manifest == Manifest.load(fetched)
    expected = OnnxRewriter.load(fetched, base_folder=tiny_qwen2).rewrite(SEGMENTS, 2)
    assert rewriter.rewrite(SEGMENTS, 2) == expected
    assert guard._origin().rewriter.startswith(Manifest.load(fetched).name)


def test_a_tenants_adapter_goes_on_the_base_that_was_chosen(
    fetched: Path, tiny_qwen2: Path, make_adapter: Any
) -> None:
    tenant = Guard(rewriter="tiny").with_adapter(make_adapter(seed=2, base=tiny_qwen2))
    assert tenant._parts["rewriter"]._base is plugins.shipped_rewriter("tiny")._base


@pytest.mark.usefixtures("shipped")
def test_without_the_chosen_base_the_guard_says_which_command_fetches_it() -> None:
    with pytest.warns(GuardrailWarning, match="guardrail models pull tiny"):
        Guard(rewriter="tiny").check("You are a complete idiot.")


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilm-l6-v2", r"has no adapter in this package; there are adapters for \['smollm2.*'tiny'\]"),
        ("nonsense", "is not a base that this package knows"),
    ],
)
def test_a_name_without_an_adapter_is_an_error_that_lists_those_with_one(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Guard(rewriter=name)


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("name", ["GUARDRAIL_REWRITER_BASE", "GUARDRAIL_REWRITER__BASE"])
def test_the_base_is_named_in_the_environment_and_in_a_file(name: str, tmp_path: Path) -> None:
    assert Config.load(environ={name: "tiny"}).arguments()["rewriter"] == "tiny"
    (tmp_path / "g.toml").write_text('[rewriter]\nbase = "tiny"\n')
    assert Guard.from_config(tmp_path / "g.toml")._parts["rewriter"] == "tiny"


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[rewriter]\nbase = "nonsense"', r"\[rewriter\] base: 'nonsense' is not a base"),
        ('[rewriter]\nbase = "tiny"\nmodel = "x"', "leave one out"),
        ('[rewriter]\nbase = "tiny"\n[models]\nrewriter = "none"', "leave one out"),
    ],
)
def test_a_base_that_cannot_be_meant_is_an_error_of_the_configuration(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Config.load(tmp_path / "g.toml", environ={}).arguments()


@pytest.mark.usefixtures("shipped")
def test_the_listing_shows_every_shipped_adapter() -> None:
    assert {"rewriter (shipped)", "adapter-tiny (shipped)"} <= {row.name for row in models.listing()}
