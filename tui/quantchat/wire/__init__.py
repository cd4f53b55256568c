"""The messages between the main process and a worker. Uses only the standard library."""
