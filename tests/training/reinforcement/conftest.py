"""Tiny random models of both families with a tokenizer of whole words, and settings that fit them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.manifest import Manifest, sha256_of
from guardrail_training import modeling
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.settings import ALL_LINEAR

WORDS = [f"{letter}{number}" for letter in "abcd" for number in range(8)]
T5_LAYERS = ("q", "k", "v", "o", "wi", "wo")
MakeLearner = Callable[..., Learner]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, much slower where the machine is busy.

    What a test draws without a seed of its own is the same in every run and order.
    """
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def word_tokenizer() -> Any:
    """One token per word; the end-of-text token is 1, the padding 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def write_base(folder: Path, model: Any) -> Path:
    """A base folder with a model, the word tokenizer and a manifest."""
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    identity = files["model.safetensors"]
    Manifest("base", "tiny", "1", "Apache-2.0", files=files, trained_on=identity).save(folder)
    return folder


def tiny_t5(**changes: Any) -> Any:
    """A random T5 of two layers, with T5's own dropout of a tenth."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(**(sizes | ends | {"vocab_size": 3 + len(WORDS), "dropout_rate": 0.1} | changes))
    )


def tiny_llama() -> Any:
    """A random Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=3 + len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.2,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
            tie_word_embeddings=False,
        )
    )


@pytest.fixture(scope="session")
def t5_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("t5"), tiny_t5())


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("llama"), tiny_llama())


@pytest.fixture(params=["causal", "encoder-decoder"])
def base(request: pytest.FixtureRequest) -> Path:
    """Both families in turn."""
    name = "llama_base" if request.param == "causal" else "t5_base"
    folder: Path = request.getfixturevalue(name)
    return folder


def layers_of(base: Path) -> tuple[str, ...]:
    """The linear layers of a base of these tests."""
    return T5_LAYERS if "t5" in base.name else ALL_LINEAR


def load_learner(
    base: Path,
    *,
    has_values: bool = True,
    stirred: bool = False,
    temperature: float = 0.7,
    recomputes: bool = False,
) -> Learner:
    """A learner on a base; ``stirred`` gives adapter and value head an effect, as training would."""
    torch.manual_seed(0)
    model = modeling.add_lora(
        modeling.load_base(base, dtype=torch.float32), rank=4, alpha=8, dropout=0.0, targets=layers_of(base)
    )
    learner = Learner(
        model,
        pad_id=0,
        temperature=temperature,
        dtype=torch.float32,
        has_values=has_values,
        recomputes=recomputes,
    )
    if stirred:
        with torch.no_grad():
            for parameter in modeling.trainable_parameters(learner):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return learner


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> PpoSettings:
    """Four steps of eight responses to prompts of two to five words."""
    return small_settings(base, tmp_path)


def small_settings(base: Path, folder: Path, **changes: Any) -> PpoSettings:
    texts = [
        " ".join(WORDS[(3 * row + word) % len(WORDS)] for word in range(1 + row % 4)) for row in range(12)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    chosen: dict[str, Any] = {
        "base": str(base),
        "out": str(folder / "run"),
        "data": str(folder),
        "prompts": "prompts.jsonl",
        "field": "text",
        "template": "a0 {text} </s>" if "t5" in base.name else "a0 {text} a1",
        "steps": 4,
        "batch_size": 8,
        "minibatch_size": 4,
        "microbatch_size": 4,
        "epochs": 2,
        "response_tokens": 6,
        "learning_rate": 1e-2,
        "rank": 4,
        "alpha": 8,
        "targets": layers_of(base),
        "dtype": "float32",
        "checkpoint_every": 2,
        "keep_every": 2,
        "keep_models": 0,
    }
    return PpoSettings(**(chosen | changes))
