"""Tiny random bases, a Llama and a Qwen2, and adapters for it, made of the same files as the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from guardrail.manifest import Manifest, sha256_of

# A shared machine makes single examples slow now and then, which says nothing about the code. The examples
# are the same in every run, so that none fails by chance; pytest --hypothesis-profile=searching draws others.
hypothesis.settings.register_profile(
    "searching", deadline=None, derandomize=False, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "patient", hypothesis.settings.get_profile("searching"), derandomize=True, database=None
)
hypothesis.settings.load_profile("patient")

TEMPLATE = "<|im_start|>user\nDetoxify: {text}<|im_end|>\n<|im_start|>assistant\n"
CORPUS = [
    "This is a rude sentence about nothing at all.",
    "The cat sat on the mat and said nothing.",
    "Please detoxify the words of the user, the assistant said.",
]
LAYERS = {  # name: (outputs, inputs)
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}

MakeAdapter = Callable[..., Path]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of models of this test's own, in place of this user's."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("GUARDRAIL_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verified base folder: Llama of two layers with a byte-level tokenizer and chat control tokens."""
    return _save_base(tmp_path_factory.mktemp("tiny-base"), kind="Llama", seed=1)


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a Qwen2, whose queries, keys and values are biased."""
    return _save_base(tmp_path_factory.mktemp("tiny-qwen2"), kind="Qwen2", seed=1)


def _save_base(folder: Path, *, kind: str, seed: int) -> Path:
    import torch
    import transformers
    from safetensors.torch import save_file

    tokenizer = _tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.3,  # large enough for logits that differ and for attention that matters
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # one whose candidates stop now and then
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith(".bias"):
                    value.normal_()  # zero in a new model
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [f"{kind}ForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    identity = files["model.safetensors"]
    Manifest("base", "tiny", "1", "Apache-2.0", files=files, trained_on=identity).save(folder)
    return folder


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )


@pytest.fixture
def make_adapter(tiny_base: Path, tmp_path: Path) -> MakeAdapter:
    """Writes an adapter for the tiny base in peft's format, with a manifest.

    ``seed`` None makes a no-op, as every adapter is before training. ``config`` changes entries of
    adapter_config.json, ``manifest`` those of the manifest; hashes are right unless a test breaks a file.
    ``base`` is another one of the same measures.
    """
    count = 0

    def make(
        *,
        seed: int | None = None,
        rank: int = 4,
        config: dict[str, Any] | None = None,
        manifest: dict[str, Any] | None = None,
        base: Path = tiny_base,
    ) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"adapter-{count}"
        folder.mkdir()
        _save_adapter(folder, seed=seed, rank=rank)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})), encoding="utf-8")
        write_adapter_manifest(folder, base, **(manifest or {}))
        return folder

    return make


def write_adapter_manifest(folder: Path, base: Path, **changes: Any) -> None:
    """A manifest with right hashes for whatever is in an adapter folder."""
    content = {
        "kind": "adapter",
        "name": folder.name,
        "version": "1",
        "licence": "Apache-2.0",
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
        "trained_on": Manifest.load(base).trained_on,
        "template": TEMPLATE,
    }
    Manifest(**(content | changes)).save(folder)


def _save_adapter(folder: Path, *, seed: int | None, rank: int) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed or 0)
    tensors = {}
    for layer in range(2):
        for name, (outputs, inputs) in LAYERS.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            down, up = (
                torch.randn(rank, inputs, generator=random),
                torch.randn(outputs, rank, generator=random),
            )
            tensors[f"{prefix}.lora_A.weight"] = down / inputs**0.5
            tensors[f"{prefix}.lora_B.weight"] = up * (0.0 if seed is None else 0.2)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(name.rpartition(".")[2] for name in LAYERS),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
