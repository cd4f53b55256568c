"""Models in GGUF files, computed by llama.cpp through the C bindings of llama-cpp-python.

Only `scoring`, whose job computes with torch, imports torch; nothing here imports transformers.
"""
