"""A tagger of edits: what it learns from, its network and its training."""
