"""Rewards: named scores of answers, and sums and products of them."""
