"""Processes that quantchat starts (workers, pip): their start, messages, logs, limits and end."""
