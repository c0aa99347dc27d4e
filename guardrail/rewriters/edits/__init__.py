"""Candidates that are edits of the flagged words."""
