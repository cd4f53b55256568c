"""Make a quantized checkpoint on command, and say what became of it."""
