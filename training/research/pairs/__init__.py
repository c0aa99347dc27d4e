"""Pairs that rewriters learn from: cleaned, judged by rule, styled, mixed."""
