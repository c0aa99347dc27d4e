"""What is known about a text without a model: segments, protected stretches, and the checks of a rewrite."""
