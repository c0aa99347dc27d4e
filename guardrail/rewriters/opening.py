"""The rewriter for an adapter, whatever the architecture of its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.models.weights import OtherModelError
from guardrail.rewriters.onnx import OnnxRewriter

if TYPE_CHECKING:
    from guardrail.rewriters.lora import LoraRewriter

__all__ = ["open_rewriter"]


def open_rewriter(
    adapter_folder: str | Path, *, base_folder: str | Path | None = None
) -> OnnxRewriter | LoraRewriter:
    """The rewriter that runs without torch, or for what that cannot run the one with torch.

    Raises as ``OnnxRewriter.load`` does, and MissingExtraError if torch is needed and not installed.
    """
    try:
        return OnnxRewriter.load(adapter_folder, base_folder=base_folder)
    except OtherModelError:
        from guardrail.rewriters.lora import LoraRewriter

        return LoraRewriter.load(adapter_folder, base_folder=base_folder)
