"""Numbers as the page prints them."""

from __future__ import annotations

from collections.abc import Callable

from guardrail_training.evaluation.generation.measures import RelativeChange
from guardrail_training.metrics.statistics import Mean, Rate
from guardrail_training.report.tables import Cell

__all__ = ["duration", "number", "percent", "signed", "with_interval"]

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None) -> str:
    """Three decimals, four significant digits where those would not do; a dash for None, nan as it is."""
    if value is None:
        return DASH
    if float(value).is_integer() and abs(value) < 1e6:
        shown = f"{abs(value):.0f}" if value == 0 else f"{value:.0f}"
    else:
        shown = f"{value:.3f}" if 1e-3 <= abs(value) < 10 else f"{value:.4g}"
    return shown.replace("-", MINUS)


def percent(share: float | None) -> str:
    """A relative change in per cent with its sign."""
    return DASH if share is None else f"{100 * share:+.1f} %".replace("-", MINUS)


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``1 h 05 min``, ``12 min 30 s``, ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def with_interval(
    mean: Mean | Rate | RelativeChange | None, *, show: Callable[[float | None], str] = number
) -> Cell:
    """A value over its 95 % interval."""
    if mean is None or mean.value is None:
        return Cell(DASH, kind="number")
    return Cell(show(mean.value), f"[{show(mean.low)}, {show(mean.high)}]", kind="number")
