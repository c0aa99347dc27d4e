"""Acceptance: whether careful readers accept what a system releases, read from blinded sheets."""
