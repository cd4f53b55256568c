"""Code for the main process and the workers; imports only the standard library and `wire`."""
