"""The base class of engines that quantize the linear layers of a model while it is loaded."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping

from quantchat.engines.engine import Engine, Table
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.estimate.weights import (
    EXPERTS,
    OTHER_MODALITIES,
    ROUTER,
    Weights,
    as_stored,
    is_linear,
    quantized_linears,
)

_NOTE_SHARE = 0.05
"""If more than this share of the weights stays unquantized, a note says so."""

_NEVER_QUANTIZED = "embeddings, norms and biases"
"""The name of the parts that no engine quantizes."""


class QuantizedOnLoad(Engine[Table]):
    """An engine without calibration: each linear layer except the output head is quantized.

    A subclass returns the bytes of one quantized layer in `quantized_layer_bytes`. In
    `left_unquantized` it says which further layers its library does not quantize.
    """

    @abstractmethod
    def quantized_layer_bytes(
        self,
        spec: Table,
        files: ModelFiles,
        tensor: TensorInfo,
        element_bytes: int,
        *,
        repacked_for_avx512: bool,
    ) -> tuple[int, Mapping[str, int]]:
        """Return the bytes of the quantized weights of one layer, and of its overhead by kind.

        `tensor` is the layer's unquantized weight. The overhead is what is stored beside the
        weights, e.g. `{"scales": 2048, "zeros": 2048}`. `element_bytes` is the size of an
        unquantized element in bytes. `repacked_for_avx512` says that the model runs on a CPU with
        AVX512-BF16 instructions; a library that has a layout for these instructions then uses it.
        """

    def left_unquantized(self, spec: Table, files: ModelFiles, tensor: TensorInfo) -> str:
        """Return why the library leaves a layer unquantized; empty if it quantizes the layer.

        The reason names the kind of layers, e.g. `layers whose width is not a multiple of 16`.
        """
        return ""

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        """Return float16 for a float16 model, else bfloat16, in which the kernels compute."""
        return "float16" if files.dtype == "float16" else "bfloat16"

    def weights(
        self, spec: Table, files: ModelFiles, element_bytes: int, *, cuda: bool, avx512_bf16: bool
    ) -> Weights:
        """Return the size of the weights: quantized layers, and the rest in full precision."""
        if files.quantization is not None:
            return as_stored(files.tensors)
        repacked_for_avx512 = avx512_bf16 and not cuda

        def is_skipped(name: str, tensor: TensorInfo) -> bool:
            return bool(self._part(spec, files, name, tensor))

        def layer_bytes(tensor: TensorInfo) -> tuple[int, Mapping[str, int]]:
            return self.quantized_layer_bytes(
                spec, files, tensor, element_bytes, repacked_for_avx512=repacked_for_avx512
            )

        return quantized_linears(files, element_bytes, layer_bytes, is_skipped=is_skipped)

    def notes(self, spec: Table, files: ModelFiles, dtype: str, *, cuda: bool) -> list[str]:
        """Return a note on the parts that are not quantized, if they are a large share."""
        if files.quantization is not None:
            return []
        left: Counter[str] = Counter()
        quantized = ends = 0
        for name, tensor in files.tensors.items():
            part = self._part(spec, files, name, tensor)
            if not part:
                quantized += tensor.elements
            elif part == _NEVER_QUANTIZED:
                ends += tensor.elements
            else:
                left[part] += tensor.elements
        if left.total() < _NOTE_SHARE * (left.total() + quantized):
            return []
        share = 1 - quantized / (left.total() + ends + quantized)
        included = ", embeddings included," if ends else ""
        parts = [part for part, count in left.most_common() if count > 0.1 * left.total()]
        named = " and ".join(parts)
        return [f"{named} not quantized: {share:.0%} of the weights{included} stay {dtype}"]

    def _part(self, spec: Table, files: ModelFiles, name: str, tensor: TensorInfo) -> str:
        """Return the name of the unquantized part a tensor belongs to; empty if it is quantized.

        transformers 5 stores all experts of a layer in one three-dimensional parameter. The
        libraries do not quantize this parameter, because it is not a linear layer.
        """
        if EXPERTS.search(name) and len(tensor.shape) > 1:
            return "experts"
        if not is_linear(name, tensor, files.vocabulary) or ROUTER.search(name):
            return _NEVER_QUANTIZED
        if len(files.configs) > 1 and OTHER_MODALITIES.search(name):
            return "image and audio parts"
        return self.left_unquantized(spec, files, tensor)
