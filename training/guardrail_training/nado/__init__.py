"""NADO: a model of success, and the posterior that it and a language model make together."""
