"""Rewrites toxic text that programs generate, verifies the rewrite, and only then shows it."""

from __future__ import annotations

__version__ = "0.1.0"
