"""The process of one variant: it loads the model, decodes, and times its tokens.

It imports only the standard library, `quantchat.wire`, `quantchat.common` and, when it loads a
model, the ML libraries of the model's engine. So it also runs under interpreters in which quantchat
is not installed (`bootstrap.py`).
"""
