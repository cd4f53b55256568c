"""Load AutoRound checkpoints that are stored in the format of GPTQ or AWQ, with GPTQModel."""

from quantchat.worker.loaders.gptq import COMPILES, UNUSED, load

__all__ = ["COMPILES", "UNUSED", "load"]
