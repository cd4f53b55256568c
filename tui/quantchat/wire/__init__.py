"""What crosses the pipe between the program and a worker. Standard library only, used by both."""
