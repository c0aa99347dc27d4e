"""A GGUF file, rewritten once as the folder that transformers loads fast and without conversion."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from guardrail.errors import MissingExtraError, ModelFileError

__all__ = ["gguf_to_folder", "quiet_transformers"]

_NOT_KEPT = ("quantization_config", "_name_or_path", "_model_name_or_path")


def gguf_to_folder(gguf: Path, folder: Path) -> None:
    """Writes float32 ``model.safetensors``, ``config.json`` and the tokenizer of a GGUF model into
    ``folder``.

    ``save_pretrained`` refuses a model that was loaded quantised, so its parts are written one by one. An
    output layer tied to the embedding is left out: loading ties it again. Takes about 20 s for 135 M
    parameters.
    """
    try:
        import torch
        from safetensors.torch import save_file
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(feature="converting the rewriter's base", extra="rewrite") from error

    options = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    # The bar of the conversion is drawn on standard error whatever transformers' own switch says.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        except ImportError as error:  # raised by transformers where the gguf package is missing
            raise MissingExtraError(feature="converting the rewriter's base", extra="rewrite") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{gguf.name} could not be read: {error}") from error

    config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_KEPT}
    config["architectures"] = [type(model).__name__]
    tied = "lm_head.weight" if model.config.tie_word_embeddings else None
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which a shared cache cannot read
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from drawing progress bars of its own while inside."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
