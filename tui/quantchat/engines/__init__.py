"""The engines: one file declares each, the registry lists them, a loader in the worker loads."""
