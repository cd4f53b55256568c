"""A model's files and what is made of them: hub, checks, tokenizer, devices, adapter."""
