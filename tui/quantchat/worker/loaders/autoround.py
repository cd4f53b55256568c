"""Load AutoRound checkpoints in GPTQ's format with GPTQModel, like GPTQ checkpoints."""

from quantchat.worker.loaders.gptq import COMPILES, UNUSED, load

__all__ = ["COMPILES", "UNUSED", "load"]
