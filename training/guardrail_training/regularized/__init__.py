"""Regularized fine-tuning: a language model held to what satisfies a constraint."""
