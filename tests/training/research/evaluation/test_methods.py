"""Adapters of several methods, measured beside each other on a tiny base, and model cards of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from guardrail.errors import ConfigError
from guardrail.manifest import Manifest, sha256_of
from guardrail_training import sft
from guardrail_training.evaluation.tables import rewriter_tables
from guardrail_training.export.card import model_card
from guardrail_training.provenance import SHIPPED
from guardrail_training.report.rewriting import find_rewriting
from guardrail_training.sft import SftSettings
from research.cli import app
from research.evaluation.evaluate import EvaluateSettings, run
from tests.training.metrics.test_metrics import write_encoder
from tests.training.reinforcement.conftest import tiny_llama
from tests.training.research.evaluation.test_evaluate import write_rows

ROOT = Path(__file__).parents[4]
MARKERS = "<!-- results:rewriter -->", "<!-- /results:rewriter -->"
METHODS = ["SFT", "ppo", "regularized"]
PAIRS: list[dict[str, Any]] = [
    {"toxic": "the red idiot sat", "neutral": ["the red man sat", "a man sat"]},
    {"toxic": "you blue moron", "neutral": ["you blue person"]},
    {"toxic": "the cat said nothing", "neutral": ["the cat said nothing"]},
    {"toxic": "green fools are on the mat", "neutral": ["green people are on the mat"]},
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What judges are trained from, and four sentences to rewrite."""
    folder = tmp_path_factory.mktemp("data")
    words = ("big", "sad", "old", "odd", "dull", "rude")
    for split in ("train", "dev"):
        write_rows(folder / "paradetox" / f"{split}.jsonl", PAIRS)
    refused = [{"text": f"you are a {word} idiot", "reasons": ["toxic_content"]} for word in words]
    write_rows(folder / "paradetox_cannot_rewrite" / "train.jsonl", refused)
    talk = [{"dialogue": f"#Person1#: a {word} day it is", "summary": ["They talk."]} for word in words]
    write_rows(folder / "dialogsum" / "train.jsonl", talk)
    write_rows(folder / "piqa" / "dev.jsonl", [{"goal": f"clean the {word} table"} for word in words])
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder as ONNX, another one for transformers, and the tokenizer of both."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=8, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers whose tokens are the words of the sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = [text for pair in PAIRS for text in (pair["toxic"], *pair["neutral"])]
    tokens = ["<pad>", "</s>", "<unk>", "=>", *sorted({word for text in texts for word in text.split()})]
    tokenizer = Tokenizer(
        models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    Manifest("base", "tiny", "1", "Apache-2.0", files=files, trained_on=files["model.safetensors"]).save(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Adapters after some steps of a training that learns the sentences by heart."""
    out = tmp_path_factory.mktemp("run")
    training = SftSettings(
        base=str(base),
        data=str(sources),
        out=str(out),
        template="{text} =>",
        passes=12,
        batch_size=4,
        rank=8,
        learning_rate=0.01,
        dtype="float32",
        evaluations_per_pass=1,
        keep_models=12,
        threads=1,
    )
    assert sft.run(training).finished
    return {step: out / f"step-{step}" for step in (5, 12)}


@pytest.fixture(scope="module")
def settings(
    sources: Path,
    encoder: Path,
    base: Path,
    adapters: dict[int, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> EvaluateSettings:
    """A good adapter with a worse one beside it, and with itself under another name."""
    folder = tmp_path_factory.mktemp("evaluation")
    return EvaluateSettings(
        what="rewriter",
        data=str(sources),
        out=str(folder),
        outputs=str(folder / "outputs.jsonl"),
        samples=2,
        base=str(base),
        adapter=str(adapters[12]),
        also=(f"ppo={adapters[5]}", f"regularized={adapters[12]}"),
        method="SFT",
        encoder=str(encoder),
        original=str(encoder),
        card=empty_card(folder),
        threads=1,
    )


@pytest.fixture(scope="module")
def result(settings: EvaluateSettings) -> dict[str, Any]:
    """What the evaluation wrote, with its card filled."""
    content: dict[str, Any] = json.loads(run(settings).read_text(encoding="utf-8"))
    return content


def empty_card(folder: Path) -> str:
    card = folder / "MODEL_CARD.md"
    card.write_text("\n".join(("above", *MARKERS, "below")), encoding="utf-8")
    return str(card)


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, its header included."""
    section = re.split(r"^(?:#|<!--)", text.partition(f"### {heading}\n")[2], flags=re.MULTILINE)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if "---" not in row]


def told(figure: dict[str, float], *, sign: str = "") -> str:
    value, low, high = (f"{figure[name]:{sign}.3f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def row_of(each: dict[str, Any], block: dict[str, Any]) -> list[str]:
    """What the card has to say of a method by the JSON."""
    style, joint = block["lower"]["sta"], block["lower"]["j_first"]
    less = each["difference"]
    return [
        each["method"],
        str(block["n"]),
        f"{told(block['sta'][style])} {style}",
        *(told(each[name]) for name in ("similarity", "chrf", "perplexity_ratio")),
        f"{told(block['j_first'][joint])} {joint}",
        f"{told(less['j'][less['lower']], sign='+')} {less['lower']}" if less else "-",
    ]


def test_a_card_has_a_row_for_every_method_with_the_figures_of_the_json(
    result: dict[str, Any], settings: EvaluateSettings
) -> None:
    card = Path(settings.card).read_text(encoding="utf-8")
    blocks = {block["system"]: block for block in result["blocks"]["all"]}
    header, *rows = cells(card, "Adapters by method, greedy")
    assert [row[0] for row in rows] == METHODS
    assert header[-1] == "difference in J from SFT"
    assert rows == [row_of(each, blocks[each["system"]]) for each in result["methods"]]
    assert rewriter_tables(result).strip() in card


def test_means_and_differences_of_methods_are_those_of_their_rows(result: dict[str, Any]) -> None:
    blocks = {block["system"]: block for block in result["blocks"]["all"]}
    for each in result["methods"]:
        block = blocks[each["system"]]
        assert each["similarity"]["value"] == pytest.approx(next(iter(block["similarity"].values())))
        assert each["chrf"]["value"] == pytest.approx(block["chrf_first"])
        assert each["perplexity_ratio"]["value"] == pytest.approx(block["perplexity_ratio"])
        assert each["perplexity_ratio"]["low"] <= each["perplexity_ratio"]["high"]
    _, ppo, same = (each["difference"] for each in result["methods"])
    assert set(ppo["j"]) == {"profanity-check", "char-ngram"}
    for judge, found in ppo["j"].items():
        less = blocks["ppo"]["j_first"][judge]["value"] - blocks["greedy"]["j_first"][judge]["value"]
        assert found["value"] == pytest.approx(less)
    assert ppo["j"][ppo["lower"]]["value"] == min(each["value"] for each in ppo["j"].values())
    assert ppo["j"][ppo["lower"]]["high"] > ppo["j"][ppo["lower"]]["low"]
    # The same weights rewrite the same.
    assert all(each["value"] == each["low"] == each["high"] == 0 for each in same["j"].values())


def test_every_method_is_told_by_the_sha256_of_its_adapter_and_by_no_path(
    result: dict[str, Any], settings: EvaluateSettings
) -> None:
    first, other, same = (files["adapter_model.safetensors"] for files in result["adapters"].values())

    assert list(result["adapters"]) == METHODS
    assert first == same == result["models"]["adapter"]["adapter_model.safetensors"] != other
    assert str(Path(settings.out).parent) not in json.dumps(result)


def test_methods_are_rows_of_the_other_tables_and_of_reports_too(
    result: dict[str, Any], settings: EvaluateSettings
) -> None:
    (found,) = find_rewriting(Path(settings.out))

    assert {"greedy", "ppo", "regularized"} < {each["over"] for each in result["advantages"]}
    assert {"greedy", "ppo", "regularized"} < {system.name for system in found.blocks["all"]}


def test_the_card_of_an_exported_model_has_the_methods_too(
    result: dict[str, Any], settings: EvaluateSettings
) -> None:
    card = model_card(Manifest.load(settings.adapter), results=result)

    assert [row[0] for row in cells(card, "Adapters by method, greedy")[1:]] == METHODS


@pytest.mark.parametrize("count", [0, 1])
def test_a_table_of_methods_has_what_was_measured_and_is_left_out_where_there_is_one_adapter(
    count: int, settings: EvaluateSettings, tmp_path: Path
) -> None:
    card = empty_card(tmp_path)
    changed = replace(settings, also=settings.also[:count], method="", perplexity=False)

    run(replace(changed, out=str(tmp_path), card=card))

    rows = cells(Path(card).read_text(encoding="utf-8"), "Adapters by method, greedy")[1:]
    assert [(row[0], row[5]) for row in rows] == ([("greedy", "-"), ("ppo", "-")] if count else [])


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (("runs/ppo/step-9",), "also needs NAME=FOLDER, got 'runs/ppo/step-9'"),
        (("=runs/ppo",), "also needs NAME=FOLDER"),
        (("ppo=",), "also needs NAME=FOLDER"),
        (("ppo=one", "ppo=other"), "another row is called 'ppo'"),
        (("greedy=runs/ppo",), "another row is called 'greedy'"),
        (("second human reference=runs/ppo",), "another row is called 'second human reference'"),
        (("SFT=runs/ppo",), "another row is called 'SFT'"),
    ],
)
def test_a_method_without_name_or_folder_or_with_a_taken_name_is_an_error(
    also: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        EvaluateSettings(what="rewriter", also=also, method="SFT")


def test_only_the_rewriting_table_takes_further_adapters() -> None:
    with pytest.raises(ConfigError, match="also goes with evaluate rewriter, not with evaluate select"):
        EvaluateSettings(what="select", checkpoints="runs/sft", also=("ppo=runs/ppo",))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("missing", "no such folder"),
        ("empty", "no manifest.json in"),
        ("altered", "was altered or cut short"),
        ("for another base", "was trained on base 0000"),
    ],
)
def test_an_adapter_that_cannot_be_measured_is_an_error_before_anything_is_opened(
    wrong: str, message: str, settings: EvaluateSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    if wrong == "empty":
        folder.mkdir()
    elif wrong != "missing":
        shutil.copytree(settings.adapter, folder)
    if wrong == "altered":
        (folder / "adapter_model.safetensors").write_bytes(b"x")
    if wrong == "for another base":
        replace(Manifest.load(folder), trained_on="0" * 64).save(folder)
    # Neither data nor encoders are there: whatever came first would say so.
    absent = str(tmp_path / "absent")
    early = replace(settings, data=absent, encoder=absent, out=absent)

    with pytest.raises(ConfigError, match=f"also: dpo=.*{message}"):
        run(replace(early, also=(*settings.also, f"dpo={folder}")))
    assert not Path(absent).exists()


def test_the_command_takes_adapters_as_settings(settings: EvaluateSettings, tmp_path: Path) -> None:
    also = json.dumps([*settings.also, f"dpo={tmp_path / 'nowhere'}"])
    arguments = ["evaluate", "rewriter", "--set", f"base={settings.base}", "--set", f"also={also}"]

    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 2
    assert "also: dpo=" in done.output
    assert "no such folder" in " ".join(done.output.split())


def test_the_shipped_card_holds_the_tables_of_the_stored_figures() -> None:
    stored = ROOT / "training" / "results" / "rewriter.json"
    tables = rewriter_tables(json.loads(stored.read_text(encoding="utf-8")))

    card = (SHIPPED / "rewriter" / "MODEL_CARD.md").read_text(encoding="utf-8")
    held = card.partition(MARKERS[0])[2].partition(MARKERS[1])[0]
    assert held.strip() == tables.strip()
    assert tables.strip() in stored.with_suffix(".md").read_text(encoding="utf-8")
