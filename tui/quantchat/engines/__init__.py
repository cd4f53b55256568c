"""The engines: one file declares each, the registry lists them, and a loader in the worker runs."""
