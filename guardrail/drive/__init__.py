"""Answers a flow's requests: the only place where sync and async differ."""
