"""The engines: one file declares each, the registry lists them; the worker has their loaders."""
