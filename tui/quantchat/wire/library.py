"""The parts of an engine's declaration that are sent to a worker.

They are not in the module `messages`, so that reading profiles does not import that module.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """A package that an engine needs in the worker's interpreter."""

    package: str
    """Name of the distribution, as in pip and `importlib.metadata`."""
    module: str
    """The module that is imported."""
    dependency: bool = True
    """Whether the package is a dependency of quantchat."""
    extra: str = ""
    """The extra of quantchat that installs the package; empty if there is none."""
    install: str = ""
    """The command that installs the package; empty: pip with the extra or the package."""

    @property
    def command(self) -> str:
        """The command that installs the package."""
        what = f"quantchat[{self.extra}]" if self.extra else self.package
        return self.install or f"python -m pip install '{what}'"


@dataclass(frozen=True)
class FolderReader:
    """How an engine's library reads a model's folder. The defaults are those of transformers."""

    reads_quantize_config: bool = False
    """Whether the library also reads the quantization config from a separate file beside
    `config.json`, and unpacks the weights itself. Then transformers' packages for that quantization
    are not needed."""
    builds_vision: bool = True
    """Whether the library builds a multimodal model's vision tower, which may need the package
    timm."""
    loads_processor: bool = False
    """Whether the library loads the processor of a multimodal model, including the part for
    videos."""
    reads_gguf: bool = False
    """Whether the library reads GGUF files, with their tokenizer, without another package."""
