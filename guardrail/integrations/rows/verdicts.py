"""``guardrail detect``: a file in, the same file with a verdict for every row out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from guardrail.errors import UsageError
from guardrail.integrations.rows.formats import Kind, kind_of, require_alike, require_pyarrow
from guardrail.integrations.rows.lines import Columns, Report, judge_lines
from guardrail.outcome import Verdict

__all__ = ["judge_file"]


def judge_file(
    detect: Callable[[Sequence[str]], list[Verdict]],
    source: Path,
    target: Path,
    *,
    columns: Columns,
    batch: int,
    kind: Kind | None = None,
) -> Report:
    """Judges JSON Lines, or a table of the ``kind`` that is said or that the name of ``source`` says."""
    kind = kind_of(source, kind, default="jsonl")
    require_alike(source, target, kind)
    if kind == "jsonl":
        return judge_lines(detect, source, target, columns=columns, batch=batch)
    if kind == "csv":
        raise UsageError(
            "verdicts are no columns of a CSV file: guardrail filter reads it, and adds scores with --into"
        )
    require_pyarrow()
    from guardrail.integrations.rows.table_verdicts import judge_table

    return judge_table(detect, source, target, columns=columns, batch=batch, kind=kind)
