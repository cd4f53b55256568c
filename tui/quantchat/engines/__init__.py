"""The engines: one module declares each engine, and the module `registry` lists them.

The code that loads a model with an engine is in `quantchat.worker.loaders`.
"""
