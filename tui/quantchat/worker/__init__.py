"""The process of one variant: it loads the model, decodes, and times its tokens.

It imports the standard library, `quantchat.wire` and `quantchat.common`, and late the ML libraries
of its engine: it also runs under interpreters in which quantchat is not installed (`bootstrap.py`).
"""
