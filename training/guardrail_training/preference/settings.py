"""What a preference run depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from guardrail.errors import ConfigError
from guardrail_training.settings import DATA, MODEL, OUTPUT, STEPS, TrainingSettings, setting, setting_of

__all__ = ["PreferenceSettings"]

CANDIDATES = "Candidates"
# What candidates depend on. Not the number of sentences or the margin: with others the same file serves.
RANKING = ("candidates", "temperature", "references", "response_tokens", "dtype", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceSettings(TrainingSettings):
    """Everything a run depends on; a recipe is this as TOML.

    Candidates are drawn and ranked once and kept in ``<out>/pairs.jsonl``; a file of fewer or of more
    sentences serves too.
    """

    trainer: ClassVar[str] = "preference"

    adapter: str | None = setting(
        None, "Folder of the adapter that is tuned; else the shipped one.", group=MODEL, is_place=True
    )
    out: str = setting("runs/preference", "Folder that receives the result.", group=OUTPUT, is_place=True)
    pairs: str = setting(
        "",
        "File of your own pairs (prompt, chosen, rejected) in place of candidates; no reward is needed then.",
        group=DATA,
        is_place=True,
    )
    sentences: int = setting(2000, "Rows that are drawn.", group=CANDIDATES, min=1)
    candidates: int = setting(
        6, "Responses sampled to each, besides the greedy one; 0 needs references.", group=CANDIDATES, min=0
    )
    temperature: float = setting(1.0, "At which they are sampled.", group=CANDIDATES, above=0)
    references: bool = setting(
        False, "Whether the row's human references are candidates too.", group=CANDIDATES
    )
    reward: str = setting(
        "clean * meaning * fluency - 0.5 * copy", "Formula that ranks them.", group=CANDIDATES
    )
    margin: float = setting(
        0.1, "Smallest difference in reward that makes a pair of best and worst.", group=CANDIDATES, above=0
    )
    response_tokens: int = setting(
        64, "A candidate that does not end within these is left out.", group=CANDIDATES, min=1
    )
    sentences_at_once: int = setting(
        16, "Sentences in memory while sampling.", group=CANDIDATES, min=1, is_free=True
    )
    max_tokens: int = setting(512, "More in a prompt and its response are an error.", group=DATA, min=1)
    method: str = setting(
        "dpo",
        "Towards the chosen as measured against the starting adapter, or by odds without a reference.",
        group=STEPS,
        choices=("dpo", "orpo"),
    )
    beta: float = setting(
        0.1,
        "dpo: inverse temperature of the implicit reward; orpo: weight of the odds.",
        group=STEPS,
        above=0,
    )
    nll_weight: float = setting(
        0.0, "dpo: weight of the chosen's mean negative log-likelihood per token.", group=STEPS, min=0
    )
    learning_rate: float = setting(5e-5, "Peak of the learning rate.", group=STEPS, above=0)
    passes: int = setting(2, "Passes over the pairs.", group=STEPS, min=1)
    batch_size: int = setting(8, "Pairs in an optimizer step.", group=STEPS, min=1)
    checkpoint_every: int = setting(
        25, "Steps between states that an interrupted run continues from.", group=OUTPUT, min=1, is_free=True
    )
    keep_every: int = setting(50, "Steps between kept adapters.", group=OUTPUT, min=1, is_free=True)

    def _check_together(self) -> None:
        if self.nll_weight and self.method == "orpo":
            raise ConfigError("nll_weight belongs to dpo: orpo has the likelihood of the chosen in its loss")
        if not self.candidates and not self.references:
            raise ConfigError("candidates must be at least 1, or 0 with references = true, got 0")

    def of_ranking(self) -> dict[str, Any]:
        """The settings that candidates and their ranks depend on."""
        return {name: getattr(self, name) for name in RANKING}

    def of_steps(self) -> dict[str, Any]:
        """The settings that the steps over given pairs depend on."""
        return {
            name: value
            for name, value in self.decisive().items()
            if setting_of(type(self), name).group != CANDIDATES
        }
