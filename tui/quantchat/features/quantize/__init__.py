"""Build a quantized checkpoint on command, and describe the result."""
