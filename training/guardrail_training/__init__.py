"""Trains the detector and the rewriter's adapters that ``guardrail`` serves."""
