"""Speed and memory of models with Llama's layer sizes and random weights.

A *shape* is the number of a model's layers and their widths. `python benchmarks/llama7b` runs the
benchmark. Its modules:

- `shapes`, `variants`, `checkpoints`: which models, which quantizations, and the files made of them
- `measure`, `pair`: load each variant in each mode and ask it; two variants side by side
- `results`, `table`: the JSON file of a shape and device, and its table in Markdown
"""
