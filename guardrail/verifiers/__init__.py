"""Verifiers: each takes sources and candidates and returns how acceptable each candidate is as a rewrite."""
