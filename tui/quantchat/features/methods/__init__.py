"""The quantization methods: what each needs, whether it runs here, its lines of a profile."""
