"""Load AutoRound checkpoints in the format of GPTQ or AWQ with GPTQModel, like those of GPTQ."""

from quantchat.worker.loaders.gptq import COMPILES, UNUSED, load

__all__ = ["COMPILES", "UNUSED", "load"]
