"""Opens the detector of a folder with whatever runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guardrail.manifest import FILENAME

__all__ = ["open_detector"]


def open_detector(folder: Path, *, threads: int | None = None, spinning: bool = False) -> Any:
    """The detector in a folder: with a manifest an OnnxDetector, else a TransformersDetector."""
    if (folder / FILENAME).is_file():
        from guardrail.detectors.onnx import OnnxDetector

        return OnnxDetector(folder, threads=threads, spinning=spinning)
    from guardrail.detectors.transformers import TransformersDetector

    return TransformersDetector.load(folder)
