"""Load AWQ checkpoints (Lin et al. 2023) with GPTQModel, as GPTQ checkpoints are loaded."""

from quantchat.worker.loaders.gptq import COMPILES, UNUSED, load

__all__ = ["COMPILES", "UNUSED", "load"]
