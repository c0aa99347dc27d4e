"""OpenAI's Responses API: responses, whole or streamed, moderated without a server or a client."""
