"""Prints the way of one clean sentence from ``@detox_guard`` to the detector, and back.

    python -m tests.path

A file or function counts if a frame of it is entered. Comprehensions count with the function they stand in,
as Python 3.12 and later run them. The models are loaded and the worker threads run before the sentence comes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import guardrail
from guardrail import Guard, Verdict, detox_guard

__all__ = ["SENTENCE", "Step", "path_of"]

SENTENCE = "What a lovely day it is today."
PACKAGE = Path(guardrail.__file__).parent
INLINE = {"<listcomp>", "<genexpr>", "<setcomp>", "<dictcomp>", "<lambda>"}


@dataclass(frozen=True, slots=True)
class Step:
    """A frame that is entered: its file in the package and its function."""

    file: str
    function: str


class _Recorder:
    """Notes the frames of this package that any thread enters while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.steps: list[Step] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not self.on or event != "call" or code.co_name in INLINE:
            return
        file = Path(code.co_filename)
        if file.is_relative_to(PACKAGE):
            owner = frame.f_locals.get("self")
            name = f"{type(owner).__name__}.{code.co_name}" if owner is not None else code.co_name
            self.steps.append(Step(str(file.relative_to(PACKAGE)), name))


def path_of(
    detect: Callable[[Sequence[str]], list[Verdict]], *, embedder: Any = None
) -> tuple[list[Step], int]:
    """The steps of one sentence through a guard with this detector, and how many lead to the detector."""
    recorder = _Recorder()
    steps_to_detector: list[int] = []

    def watched(texts: Sequence[str]) -> list[Verdict]:
        if recorder.on:
            steps_to_detector.append(len(recorder.steps))
        recorder.on, before = False, recorder.on  # what is inside of the detector is its own affair
        try:
            return detect(texts)
        finally:
            recorder.on = before

    threading.setprofile(recorder)
    try:
        guard = Guard(detector=watched, rewriter=None, verifier=None)

        @detox_guard(guard=guard)
        def agent() -> str:
            return SENTENCE

        assert agent() == SENTENCE  # loads what is loaded once, and starts the worker
        sys.setprofile(recorder)
        recorder.on = True
        text = agent()
        recorder.on = False
        assert text is SENTENCE
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    (reached,) = steps_to_detector
    return recorder.steps, reached


def summary(steps: Sequence[Step]) -> str:
    """Files, functions and frames of some steps."""
    files = {step.file for step in steps}
    return f"{len(files)} files, {len(set(steps))} functions, {len(steps)} frames"


def main() -> None:
    """Prints the path for the shipped detector."""
    from guardrail.detectors.onnx import OnnxDetector

    steps, reached = path_of(OnnxDetector.shipped().detect)
    for step in dict.fromkeys(steps[:reached]):
        print(f"{step.file:24} {step.function}")
    print(f"to the detector: {summary(steps[:reached])}")
    print(f"there and back:  {summary(steps)}")


if __name__ == "__main__":
    main()
