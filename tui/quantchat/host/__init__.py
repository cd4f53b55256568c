"""The near side of a worker: start its process, talk to it, end it for sure."""
