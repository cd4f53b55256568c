"""Finds which layers and modules of a quantized model cause its error.

It measures the sensitivity of each layer as ZeroQ defines it (Cai et al. 2020, arXiv:2001.00281,
section 3): the KL divergence between the predictions of the reference and those of the reference
with a single layer quantized. The quantized layer is taken from the variant, and the kernels of the
variant's engine compute it; nothing is quantized again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import LocateLossJob, LocateLossResult, PartDivergence
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.job_env import prepare_process
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.report import Report
from quantchat.worker.scoring.logit_store import LogitReader, LogitWriter, divergence
from quantchat.worker.scoring.logits import Forecast
from quantchat.worker.scoring.text_scoring import load_or_refuse
from quantchat.worker.scoring.windows import Windows, check, read_tokens


def run(job: LocateLossJob, report: Report) -> LocateLossResult:
    """Put single layers of the variant into the reference, then single modules; measure each KLD.

    Raises Refused if a model cannot be loaded, or if the layers cannot be exchanged.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    variant, reference = _loaded(job, report)
    exchange = _Exchange(reference.model, variant.model)
    text = _ScoredText(job, reference)
    with LogitWriter(text.file) as file:
        for logits in text.logits(reference):
            file.write(logits)
    whole_kld, _ = text.distance(variant)

    layers = exchange.layers
    modules_of = {name: exchange.modules(name) for name in layers}
    most = max((len(names) for names in modules_of.values()), default=0)
    total = len(layers) + min(job.worst, len(layers)) * most
    done = 0

    def divergence_with(name: str, *, layer: bool) -> PartDivergence:
        nonlocal done
        report(done, total, "layers exchanged")
        done += 1
        with exchange.quantized(name):
            return PartDivergence(name, layer, *text.distance(reference))

    parts = [divergence_with(name, layer=True) for name in layers]
    worst = sorted(parts, key=lambda part: part.kld, reverse=True)[: job.worst]
    parts += [divergence_with(name, layer=False) for one in worst for name in modules_of[one.name]]
    return LocateLossResult(text.positions, whole_kld, parts)


def _loaded(job: LocateLossJob, report: Report) -> tuple[Loaded, Loaded]:
    models = [load_or_refuse(job.load, report), load_or_refuse(job.reference, report)]
    variant, reference = models
    if not isinstance(variant, Loaded) or not isinstance(reference, Loaded):
        raise Refused(
            "unsupported",
            "single layers of this variant cannot be put into the reference: torch does not compute"
            " the model",
        )
    return variant, reference


class _ScoredText:
    """The text to score, and a file with the logits that the reference computes for the text."""

    def __init__(self, job: LocateLossJob, reference: Loaded) -> None:
        self.file = Path(job.workspace.output, "forecasts")
        self._windows = Windows(job.window, job.window)
        self._tokens = read_tokens(reference.tokenizer, Path(job.text), job.tokens)
        check(self._tokens, self._windows, reference.context_length)
        self._forecasts: dict[int, Forecast] = {}
        self._starts = self._windows.starts(len(self._tokens.ids))
        self.positions = len(self._starts) * self._windows.scored

    def logits(self, loaded: Loaded) -> Iterator[Any]:
        """Yield blocks of the logits of all scored tokens, as `loaded` now computes them."""
        forecast = self._forecast(loaded)
        for start in self._starts:
            ids = self._tokens.window(start, self._windows)
            yield from forecast.logits(ids[:-1], self._windows.context - 1)

    def _forecast(self, loaded: Loaded) -> Forecast:
        if id(loaded) not in self._forecasts:
            self._forecasts[id(loaded)] = Forecast(loaded, self._tokens.ids)
        return self._forecasts[id(loaded)]

    def distance(self, loaded: Loaded) -> tuple[float, float]:
        """Return the mean KLD of `loaded` from the stored logits, and its standard error.

        The stored logits are those of the unchanged reference; `loaded` is the variant, or the
        reference with an exchanged module.
        """
        klds: list[float] = []
        vocabulary = self._forecast(loaded).vocabulary
        with LogitReader(self.file, self.positions, vocabulary) as theirs:
            for logits in self.logits(loaded):
                mine = logits.log_softmax(dim=-1)
                klds += divergence(theirs.read(len(mine), mine.device), mine).tolist()
        mean = math.fsum(klds) / len(klds)
        variance = math.fsum((one - mean) ** 2 for one in klds) / max(1, len(klds) - 1)
        return mean, math.sqrt(variance / len(klds))


class _Exchange:
    """Puts modules of the model `of` into the model `into`, which has the same architecture."""

    def __init__(self, into: Any, of: Any) -> None:
        self._into, self._of = into, of
        prefix, layers = _layers(into)
        other, theirs = _layers(of)
        if len(layers) != len(theirs):
            raise Refused(
                "unsupported",
                f"the variant has {len(theirs)} layers, and the reference {len(layers)}",
            )
        self._names = {f"{prefix}.{n}": f"{other}.{n}" for n in range(len(layers))}

    @property
    def layers(self) -> list[str]:
        """The names of the layers in the model `into`."""
        return list(self._names)

    def modules(self, layer: str) -> list[str]:
        """Return the names of the modules with weights of `layer` that both models have."""
        ours = self._into.get_submodule(layer)
        theirs = dict(self._of.get_submodule(self._names[layer]).named_modules())
        return [
            f"{layer}.{name}"
            for name, module in ours.named_modules()
            if name in theirs and getattr(module, "weight", None) is not None
            and module.weight.dim() == 2  # a matrix: norms are not quantized
        ]  # fmt: skip

    @contextlib.contextmanager
    def quantized(self, name: str) -> Iterator[None]:
        """Within this context, use the module `name` of the model `of` in the model `into`."""
        layer = next(one for one in self._names if f"{name}.".startswith(f"{one}."))
        before = self._into.get_submodule(name)
        other = self._of.get_submodule(self._names[layer] + name.removeprefix(layer))
        hooks = _same_dtype(other, next(before.parameters()))
        self._into.set_submodule(name, other)
        try:
            yield
        finally:
            self._into.set_submodule(name, before)
            for hook in hooks:
                hook.remove()


def _layers(model: Any) -> tuple[str, Any]:
    """Return name and module of the list of the model's layers. Raises Refused without a list."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return name, module
    raise Refused(
        "unsupported",
        "single layers of this model cannot be exchanged: it has no list of its layers",
    )


def _same_dtype(module: Any, like: Any) -> list[Any]:
    """Let `module` take and return activations in the dtype and on the device of `like`.

    Return the hooks that do so, which the caller must remove.
    """
    import torch

    own = next((one for one in module.parameters() if one.is_floating_point()), None)
    dtype = own.dtype if own is not None else like.dtype

    def cast(value: Any, dtype: Any, device: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)
        if isinstance(value, tuple):
            return tuple(cast(one, dtype, device) for one in value)
        return value

    device = own.device if own is not None else like.device

    def before(_: Any, args: Any, named: Any) -> Any:
        return (
            cast(args, dtype, device),
            {name: cast(value, dtype, device) for name, value in named.items()},
        )

    def after(_: Any, __: Any, output: Any) -> Any:
        return cast(output, like.dtype, like.device)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]
