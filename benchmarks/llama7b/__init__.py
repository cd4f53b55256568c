"""Speed and memory of models of Llama's shapes with random weights: `python benchmarks/llama7b`.

- `shapes`, `variants`, `checkpoints`: which models, which quantizations, and the files made of them
- `measure`, `pair`: load each variant in each mode and ask it; two variants side by side
- `results`, `table`: the JSON file of a shape and device, and its table in Markdown
"""
