"""Variants whose model a server runs: requests over HTTP with OpenAI's protocol, without torch."""
