"""The engines: each has a file that declares it, the registry lists them, workers have loaders."""
