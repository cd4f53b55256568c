"""Models in GGUF files, computed by llama.cpp through the C bindings of llama-cpp-python.

Nothing here imports torch or transformers, but `scoring`, whose job computes with torch.
"""
