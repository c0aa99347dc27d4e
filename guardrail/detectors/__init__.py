"""Detectors: each takes texts and returns one verdict per text."""
