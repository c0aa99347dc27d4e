"""Parquet and Arrow files, of which one column is judged or changes."""

from __future__ import annotations

from guardrail.errors import MissingExtraError

try:
    import pyarrow as pyarrow
except ImportError as missing:
    raise MissingExtraError(feature="a Parquet or Arrow file", extra="parquet") from missing
