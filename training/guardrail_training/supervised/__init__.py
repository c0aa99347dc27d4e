"""Supervised training: what it depends on, what it reads, what it leaves."""
