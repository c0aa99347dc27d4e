"""One reader of rows for detect, filter and training: JSON Lines, CSV, Parquet, Arrow, compressed or not."""

from __future__ import annotations

from guardrail.integrations.rows.job import Job, Summary

__all__ = ["Job", "Summary"]
