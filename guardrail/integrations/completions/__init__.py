"""Completions of language models, whole or streamed: moderated without a server or a client."""
