"""The main process' side of a worker: start the process, exchange messages with it, end it."""
