"""Base models, LoRA adapters and the tensors that go through them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DynamicCache,
)

from guardrail.errors import ConfigError, ModelMissingError
from guardrail.manifest import FILENAME, Encoder, Template
from guardrail.models.convert import quiet_transformers
from guardrail_training.losses import IGNORED
from guardrail_training.quantised import keep_trainable, quantisation_config, stored_parameters

__all__ = [
    "LINEAR_LAYERS",
    "Batch",
    "Example",
    "ParameterCount",
    "add_lora",
    "autocast",
    "collate",
    "count_parameters",
    "encode_example",
    "load_base",
    "load_ending_tokenizer",
    "load_tokenizer",
    "resolve_device",
    "resolve_dtype",
    "save_adapter",
    "save_model",
    "target_logits",
    "trainable_parameters",
    "write_adapter",
]

WHOLE = "1TB"  # one weight file, which is what a manifest's identity is the sha256 of
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one prompt and its target; the target ends with the end-of-text id."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids and labels, both ``(batch, time)`` int64; only target positions carry labels.

    The first ``shared`` ids are equal in all rows and end before the last id of any prompt.
    """

    input_ids: Tensor
    labels: Tensor
    shared: int

    @property
    def target_tokens(self) -> int:
        """How many positions carry a label."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many numbers a model holds and how many of them are trained."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"trainable parameters: {self.trainable:,} of {self.total:,} ({share:.3g} %)"


def count_parameters(model: nn.Module) -> ParameterCount:
    """The model's numbers, those of a quantised base as many as they were before."""
    sizes = [(stored_parameters(p), p.requires_grad) for p in model.parameters()]
    return ParameterCount(
        trainable=sum(size for size, is_trained in sizes if is_trained), total=sum(size for size, _ in sizes)
    )


def resolve_device(name: str) -> torch.device:
    """Where to train: ``auto`` is this process's GPU where there is one, else the CPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' needs a GPU, which torch does not find here; 'cpu' trains without")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype to train in; ``auto`` is bfloat16 where the CPU multiplies in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be auto, float32 or bfloat16, got {name!r}")
    return torch.float32 if name == "float32" else torch.bfloat16


def _cpu_has_bfloat16() -> bool:
    # Without the instructions bfloat16 is emulated, and slower than float32.
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a base folder; no code from the folder runs and nothing is downloaded."""
    _require_folder(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_ending_tokenizer(folder: str | Path, *, pad_token: str = "") -> Any:
    """The tokenizer of a base folder, padding with ``pad_token`` where it does not say with what.

    Raises ConfigError where it has no padding or no end-of-text token.
    """
    tokenizer = load_tokenizer(folder)
    if pad_token and tokenizer.pad_token is None:
        if pad_token not in tokenizer.get_vocab():
            raise ConfigError(f"pad_token: the tokenizer of {folder} does not know {pad_token!r}")
        tokenizer.pad_token = pad_token
    for name in ("pad_token", "eos_token"):
        if getattr(tokenizer, name) is None:
            raise ConfigError(
                f"the tokenizer of {folder} has no {name}: set it in its tokenizer_config.json (the padding "
                "may be the end-of-text token)"
            )
    return tokenizer


def load_base(
    folder: str | Path,
    *,
    dtype: torch.dtype,
    quantisation: str = "none",
    device: torch.device | None = None,
    has_dropout: bool = False,
) -> Any:
    """The language model of a base folder, causal or encoder-decoder, frozen, on the CPU unless told.

    ``quantisation`` is none, int8 or nf4. ``has_dropout`` leaves it the dropout rates of its config, which
    matter in training mode alone.
    """
    _require_folder(folder)
    offline = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **offline)
    if not has_dropout:
        _remove_dropout(config)
    device = device or torch.device("cpu")
    more: dict[str, Any] = {}
    if quantisation != "none":
        how = quantisation_config(quantisation, dtype=dtype, device=device)
        more = {"quantization_config": how, "device_map": {"": device}}
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with quiet_transformers():
        model: Any = kind.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, **offline, **more
        )
    keep_trainable(model)
    model.config.use_cache = False
    model.requires_grad_(False)
    return model.eval() if more else model.eval().to(device)


def _remove_dropout(config: Any) -> None:
    for name, rate in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(rate, float):
            setattr(config, name, 0.0)


def _require_folder(folder: str | Path) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise ModelMissingError(f"no base model in {folder}; fetch it with 'guardrail models pull'")


def add_lora(model: Any, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> PeftModel:
    """The model with a fresh adapter: a no-op until trained, in float32 whatever the base is held in.

    Raises ConfigError where the model has no layer of a target's name.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := sorted(set(targets) - names):
        raise ConfigError(f"targets {', '.join(missing)}: {type(model).__name__} has no layers of that name")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft reads an attribute that transformers has renamed; its value plays no part here.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        # It looks for bitsandbytes, which uses what torch has renamed.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer should move, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def autocast(dtype: torch.dtype, *, device: str = "cpu") -> Iterator[None]:
    """Matrix products in ``dtype`` while inside; nothing changes for float32."""
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        yield


def encode_example(tokenizer: Any, template: Template, *, source: str, target: str) -> Example:
    """Ids of one pair: the prompt as it is served, the target ending in the end-of-text id.

    Control tokens that occur in either text are split into ordinary pieces.
    """
    encoder: Encoder = tokenizer
    ids = encoder.encode(target, add_special_tokens=False, split_special_tokens=True)
    return Example(prompt=tuple(template.encode(encoder, source)), target=(*ids, tokenizer.eos_token_id))


def collate(examples: Sequence[Example], *, pad_id: int) -> Batch:
    """One right-padded batch; labels are the target's ids at the target's own positions."""
    longest = max(len(example) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id, dtype=torch.int64)  # (batch, time)
    labels = torch.full((len(examples), longest), IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.prompt + example.target)
        labels[row, len(example.prompt) : len(example)] = torch.tensor(example.target)
    return Batch(input_ids=input_ids, labels=labels, shared=_shared_ids(examples))


def _shared_ids(examples: Sequence[Example]) -> int:
    # A prompt's last id predicts the first target, so it stays in the part that each row has alone.
    columns = zip(*(example.prompt[:-1] for example in examples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def target_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits ``(tokens, vocabulary)`` and targets ``(tokens,)`` of the labelled positions only.

    The position before a label predicts it. Two savings that change no number but for rounding: the opening
    ids that all rows share run through the model once, gradients included, and the product with the
    vocabulary's 49k rows is taken at labelled positions alone. No attention mask is passed: padding is on the
    right, so causal attention already keeps it from every real position.
    """
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    trunk = causal.base_model
    ids, labels = batch.input_ids[:, :-1].to(causal.device), batch.labels[:, 1:].to(causal.device)
    shared = batch.shared
    cache = None
    if shared:
        cache = DynamicCache(config=causal.config)
        trunk(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(ids))
    states = trunk(
        input_ids=ids[:, shared:], past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state  # (batch, time - shared - 1, width)
    labels = labels[:, shared:]
    labelled = labels != IGNORED
    return causal.get_output_embeddings()(states[labelled]), labels[labelled]


def save_model(model: Any, folder: str | Path, *, tokenizer: Any) -> list[Path]:
    """Writes a whole model as a base folder: ``model.safetensors``, configuration, tokenizer; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=WHOLE)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which others cannot read
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILENAME)


def save_adapter(model: PeftModel, folder: str | Path) -> list[Path]:
    """Writes the model's adapter as ``write_adapter`` does; returns the paths of its files."""
    config: Any = model.peft_config["default"]
    return write_adapter(
        folder,
        get_peft_model_state_dict(model),
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=config.target_modules,
        task=config.task_type,
    )


def write_adapter(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Iterable[str],
    task: str,
) -> list[Path]:
    """Writes ``adapter_model.safetensors`` in float16 and ``adapter_config.json``; returns their paths.

    ``tensors`` has peft's names. Not by ``save_pretrained``, which would record the path of the base on this
    machine.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    state = {name: value.to(torch.float16).contiguous() for name, value in tensors.items()}
    save_file(state, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes 0600, which others cannot read
    content = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [weights, path]
