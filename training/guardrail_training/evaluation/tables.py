"""Result files as Markdown, and the marked blocks of model cards that hold it.

Tables are made from the JSON alone, so a card can be filled again without measuring again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError

__all__ = ["fill_card", "interval", "rewriter_tables", "sample_listing", "table"]

Result = Mapping[str, Any]
BLOCK = "<!-- results:{name} -->", "<!-- /results:{name} -->"
BY_METHOD = (
    "chrF and J against the first reference, 95 % bootstrap intervals over sentences, paired differences. "
    "The judge that gives the lower figure counts, and is named."
)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are put on one line and their bars escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def interval(value: Result, *, sign: str = "") -> str:
    """A figure with its interval."""
    middle, low, high = (f"{value[name]:{sign}.3f}" for name in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def rewriter_tables(result: Result) -> str:
    """Both blocks, overlap and toxicity, the guard's advantage over every other row; adapters by method where
    several were measured.
    """
    pieces = []
    titles = {
        "all": "### All sentences\n",
        "rewritten": "### Sentences that were to be rewritten; masked or refused counts as toxic\n",
    }
    for name, title in titles.items():
        blocks = result["blocks"][name]
        pieces += [title, _joint_table(blocks), _overlap_table(blocks)]
    if result["advantages"]:
        rows = [
            [each["over"], each["j"]["n"], each["judge"], interval(each["j"])]
            for each in result["advantages"]
        ]
        header = ["over", "shared sentences", "judge", "difference in J, with 95 % interval"]
        pieces += [f"### Paired advantage of {result['favourite']}\n", table(header, rows)]
    if result.get("methods"):
        pieces += ["### Adapters by method, greedy\n", f"{BY_METHOD}\n", _method_table(result)]
    return "\n".join(pieces)


def _method_table(result: Result) -> str:
    blocks = {block["system"]: block for block in result["blocks"]["all"]}
    first = result["methods"][0]["method"]
    names = ["method", "n", "non-toxic", "SIM", "chrF", "perplexity ratio", "J"]
    rows = []
    for each in result["methods"]:
        block, ratio, less = blocks[each["system"]], each["perplexity_ratio"], each["difference"]
        style, joint = (_judged(block[name], block["lower"][name]) for name in ("sta", "j_first"))
        rows.append(
            [
                each["method"],
                block["n"],
                style,
                interval(each["similarity"]),
                interval(each["chrf"]),
                interval(ratio) if ratio else None,
                joint,
                _judged(less["j"], less["lower"], sign="+") if less else None,
            ]
        )
    return table([*names, f"difference in J from {first}"], rows)


def _judged(by_judge: Result, judge: str, *, sign: str = "") -> str:
    return f"{interval(by_judge[judge], sign=sign)} {judge}"


def _joint_table(blocks: Iterable[Result]) -> str:
    header = [
        "system",
        "n",
        "non-toxic (lower judge)",
        "judge",
        "SIM",
        "J first reference",
        "J best reference",
    ]
    rows = [
        [
            block["system"],
            block["n"],
            interval(block["sta"][block["lower"]["sta"]]),
            block["lower"]["sta"],
            next(iter(block["similarity"].values())),
            interval(block["j_first"][block["lower"]["j_first"]]),
            interval(block["j_best"][block["lower"]["j_best"]]),
        ]
        for block in blocks
    ]
    return table(header, rows)


def _overlap_table(blocks: Iterable[Result]) -> str:
    blocks = list(blocks)
    encoders = list(blocks[0]["similarity"]) if blocks else []
    scorers = list(blocks[0]["toxicity"]) if blocks else []
    header = [
        "system",
        *(f"SIM {name}" for name in encoders),
        *(f"SIM to reference {name}" for name in encoders),
    ]
    header += ["BLEU", "corpus BLEU", "R1", "R2", "RL", "chrF first", "chrF best"]
    header += [*(f"toxicity {name}, mean / std" for name in scorers), "perplexity ratio", "actions"]
    names = ("bleu", "corpus_bleu", "rouge1", "rouge2", "rougeL", "chrf_first", "chrf_best")
    rows = [
        [
            block["system"],
            *(block["similarity"][name] for name in encoders),
            *(block["reference_similarity"][name] for name in encoders),
            *(block[name] for name in names),
            *(
                f"{block['toxicity'][name]['mean']:.3f} / {block['toxicity'][name]['std']:.3f}"
                for name in scorers
            ),
            block["perplexity_ratio"],
            ", ".join(f"{action} {count}" for action, count in sorted(block["actions"].items())) or None,
        ]
        for block in blocks
    ]
    return table(header, rows)


def sample_listing(result: Result) -> str:
    """The random outputs in full."""
    rows = [[each["row"], each["action"], each["source"], each["output"]] for each in result["samples"]]
    return table(["row", "action", "source", "output"], rows)


def fill_card(card: str | Path, *, name: str, content: str) -> None:
    """Replaces what stands between the markers of block ``name`` in a model card.

    Raises UsageError if the card or its markers are missing; the message says what to add.
    """
    path = Path(card)
    if not path.is_file():
        raise UsageError(f"no model card {path}")
    start, end = (marker.format(name=name) for marker in BLOCK)
    before, opened, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise UsageError(f"{path} has no block to fill: add the lines {start} and {end}")
    path.write_text(f"{before}{start}\n{content.strip()}\n{end}{after}", encoding="utf-8")
