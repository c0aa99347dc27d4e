"""Figures of texts and of measurements; anything may use them, a reward too."""
