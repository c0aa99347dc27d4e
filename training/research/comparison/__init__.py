"""Rows of an experiment at the same budget: trained, measured, compared."""
