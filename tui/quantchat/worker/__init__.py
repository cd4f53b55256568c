"""One variant's own process: loads it, decodes, times its own tokens.

Imports the standard library and, late, the ML libraries its engine needs; nothing else of
quantchat. It runs under interpreters in which quantchat is not installed (`launch.py`).
"""
