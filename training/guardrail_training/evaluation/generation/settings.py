"""What a comparison of a run with where it started depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training.settings import DATA, setting

__all__ = ["MEASURED", "SAMPLES", "TABLES", "GenerationSettings"]

MEASURED, TABLES, SAMPLES = "generation.json", "generation.md", "samples.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Which run is compared, on which prompts, by which measures.

    run                  folder of a finished sft, ppo or preference run; base and starting adapter come from
                         its run.json
    adapter              adapter that is measured, empty: the run's last step-N
    data, prompts, field file ``prompts`` below ``data`` (empty: GUARDRAIL_DATA), its field with the texts
    reference            field with a text, or a list of them, that ROUGE compares with; empty: no ROUGE
    out                  folder that receives what is found, empty: the run's
    reward               formula, see guardrail_training.rewards.formula; empty: the run's, else that of ppo
    judges               measures of toxicity: formulas such as ``1 - clean`` (the shipped detector)
                         or ``classifier('FOLDER', label='hate', output='probability')``
    limit                so many prompts, drawn by the seed; 0: all
    min_characters, max_characters        texts outside are left out
    max_prompt_tokens    a longer prompt is an error
    response_tokens, temperature          of sampling; 0: the run's, else 60 and 1
    min_response_tokens  a response cannot end before; None: the run's, else 0
    keeps_special_tokens reward and judges read responses with their special tokens, such as </s>
    encoder              what gives the cosine of response and first reference: a folder, a model that
                         'guardrail models list' names, or detector for the shipped one; empty: no cosine
    batch_size           prompts at a time; changes no response but for rounding
    seed                 of the draw, the responses and the intervals
    threads              of torch, 0: torch's own choice
    device, dtype        of the models, the reward's among them; auto: the GPU, if any; bfloat16 halves 7 B
    """

    run: str
    prompts: str
    field: str
    adapter: str = ""
    data: str = ""
    reference: str = ""
    out: str = ""
    reward: str = ""
    judges: tuple[str, ...] = ("1 - clean",)
    limit: int = 200
    min_characters: int = setting(1, "Shorter texts are left out.", group=DATA, formerly="least_characters")
    max_characters: int = setting(4000, "Longer texts are left out.", group=DATA, formerly="most_characters")
    max_prompt_tokens: int = 1024
    response_tokens: int = 0
    temperature: float = 0.0
    min_response_tokens: int | None = None
    keeps_special_tokens: bool = False
    encoder: str = ""
    batch_size: int = 16
    seed: int = 13
    threads: int = 0
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for key in ("limit", "response_tokens", "temperature", "threads"):
            if not getattr(self, key) >= 0:
                raise ConfigError(f"{key} must not be negative, got {getattr(self, key)}")
        if self.min_response_tokens is not None and self.min_response_tokens < 0:
            raise ConfigError(f"min_response_tokens must not be negative, got {self.min_response_tokens}")
        if self.encoder and not self.reference:
            raise ConfigError("encoder compares responses with references: name their field with reference")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if not self.judges or len(set(self.judges)) < len(self.judges):
            raise ConfigError("judges must name at least one measure of toxicity, none of them twice")
