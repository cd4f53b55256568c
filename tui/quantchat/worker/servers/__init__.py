"""Variants that a server runs, over HTTP with OpenAI's protocol. Nothing here imports torch."""
