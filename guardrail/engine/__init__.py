"""From a text to its outcome: the ladder, the model calls that serve it, and where they run."""
