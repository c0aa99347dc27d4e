"""Preference tuning: a rewriter learns from the best and the worst of its own candidates."""
