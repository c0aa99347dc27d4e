"""Finds the strings in a returned value, tells prose from the rest, puts moderated prose back."""
