"""What an evaluation measures, on what, with what."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training.evaluation.methods import Method, read_methods

__all__ = ["MEASUREMENTS", "EvaluateSettings"]

MEASUREMENTS = ("judges", "detector", "rewriter", "checks", "select", "annotate", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to measure, on what, with what. Models are names that ``guardrail models`` knows, or folders.

    what          judges, detector, rewriter, checks, select, annotate or agreement
    data          folder of the sources; GUARDRAIL_DATA if empty
    out           where the JSON and Markdown go
    outputs       file of system outputs: written by ``rewriter``, read by ``annotate``
    seed          of bootstraps, samples, obfuscation and sheets
    limit         only the first so many dev sentences of the rewriting table, or sentences of each set of
                  ``checks``, 0: all (a smoke run)
    samples       random outputs printed in full; sentences of an annotation sheet; eight times the
                  examples of each refusing check
    paradetox_rows  sentences of ParaDetox train whose references ``checks`` reads
    spoilt        rewrites of each kind of fault that ``checks`` makes
    base          base of the rewriter
    adapter       adapter folder, empty: the shipped one
    pilot         adapter folder of the pilot's recipe; the row is left out if empty
    also          NAME=FOLDER for each further adapter on ``base`` that ``rewriter`` puts beside ``adapter``
    method        what those tables call the method of ``adapter``, empty: greedy
    detector      detector folder, empty: the shipped one
    encoder       encoder of SIM and J
    original      the original MiniLM, whose tokenizer file ``encoder`` shares
    perplexity    measure the perplexity ratio under the base (the slowest of the measures)
    cross_source  texts to train detectors on that lack a source and are tested on it, 0: none of them
                  (10,000 take up to 15 minutes each)
    runs          folder of trainings for ``cross_source``
    checkpoints   run folder with step-N adapters, for ``select``
    sheets        the sheet to write, or the two filled sheets to compare
    key           the key of the compared sheets, empty: alongside the first one
    card          model card whose marked block is filled with the tables
    threads       of torch and onnxruntime
    device, dtype of the base that measures perplexity; auto: the GPU, if any
    """

    what: str
    data: str = ""
    out: str = "training/results"
    outputs: str = "runs/evaluate/outputs.jsonl"
    seed: int = 13
    limit: int = 0
    samples: int = 40
    paradetox_rows: int = 2000
    spoilt: int = 200
    base: str = "smollm2-135m-instruct"
    adapter: str = ""
    pilot: str = ""
    also: tuple[str, ...] = ()
    method: str = ""
    detector: str = ""
    encoder: str = "paraphrase-minilm-l3"
    original: str = "minilm-l6-v2"
    perplexity: bool = True
    cross_source: int = 0
    runs: str = "runs/cross-source"
    checkpoints: str = ""
    sheets: tuple[str, ...] = ()
    key: str = ""
    card: str = ""
    threads: int = 2
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.what not in MEASUREMENTS:
            raise ConfigError(f"evaluate what must be one of {', '.join(MEASUREMENTS)}, got {self.what!r}")
        if min(self.limit, self.cross_source) < 0 or self.samples < 1 or self.threads < 1:
            raise ConfigError(
                "evaluate needs limit and cross_source of 0 or more, and samples and threads of 1 or more"
            )
        wanted = {"annotate": 1, "agreement": 2}.get(self.what)
        if wanted is not None and len(self.sheets) != wanted:
            raise ConfigError(f"evaluate {self.what} needs {wanted} in sheets, got {len(self.sheets)}")
        if self.what == "select" and not self.checkpoints:
            raise ConfigError("evaluate select needs checkpoints: the folder of an sft run")
        if self.also and self.what != "rewriter":
            raise ConfigError(f"also goes with evaluate rewriter, not with evaluate {self.what}")
        read_methods(self.also, known=self.method)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The adapters of ``also``."""
        return read_methods(self.also, known=self.method)
