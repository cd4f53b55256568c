"""Variants that another program runs: an OpenAI-compatible server, asked over HTTP. No torch."""
