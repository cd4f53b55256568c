"""Load AWQ checkpoints (Lin et al. 2023) with GPTQModel, in the same way as GPTQ checkpoints."""

from quantchat.worker.loaders.gptq import COMPILES, UNUSED, load

__all__ = ["COMPILES", "UNUSED", "load"]
