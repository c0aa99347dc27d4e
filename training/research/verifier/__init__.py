"""A small judge of rewrites: what it learns from."""
