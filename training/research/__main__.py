"""Runs ``python -m research``."""

from research.cli import app

app(prog_name="python -m research")
