"""Anthropic's Messages API: messages, whole or streamed, moderated without a server or a client."""
