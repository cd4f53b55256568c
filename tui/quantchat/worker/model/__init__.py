"""From a model's files to a loaded model: hub, checks, tokenizer, devices, adapter."""
