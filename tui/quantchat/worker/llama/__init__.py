"""Models in GGUF files, computed by llama.cpp through the C bindings of llama-cpp-python.

`scoring` imports torch, because the job that uses it computes with torch. `harness` imports
lm-evaluation-harness, which imports transformers. The other modules import neither.
"""
