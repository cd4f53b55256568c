"""Download, dequantize, quantize and cache the checkpoints that variants load."""
