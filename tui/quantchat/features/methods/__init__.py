"""The quantization methods: what each needs, whether it runs here, how a profile names it."""
