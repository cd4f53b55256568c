"""The probes of `probe.py`, in the order in which they run.

Each returns its result by name. Its docstring is saved with the result, as what was expected.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
SIZES = ((4096, 4096), (11008, 4096), (4096, 11008)) if GPU else ((256, 128),)
"""Output and input width of the layers; on a GPU those of Llama-2-7B."""
COPIES = 8 if GPU else 2
"""Number of layers that take turns, so that no layer's weights are still in the cache."""

Found = dict[str, Any]

attend = functional.scaled_dot_product_attention


def device_name() -> str:
    """Return the GPU's name; `cpu` if there is none."""
    return str(torch.cuda.get_device_name()) if GPU else "cpu"


def graph_us(calls: Sequence[Callable[[], Any]], replays: int = 20) -> float:
    """Return the mean time of one of `calls` in µs.

    On a GPU all are captured in one CUDA graph, which is replayed; on a CPU each is called once.
    """
    if not GPU:
        began = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - began) / len(calls) * 1e6
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) * 1e3 / replays / len(calls)


def error_of(found: Any, expected: Any) -> float:
    """Return the relative error of `found` in the Euclidean norm."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def random(*sizes: int, dtype: Any = torch.bfloat16) -> Any:
    """Return normal random numbers on the device."""
    return torch.randn(*sizes, device=DEVICE, dtype=dtype)


def machine() -> Found:
    """Return the versions of the libraries and the properties of the GPU."""
    more: Found = {}
    if GPU:
        told = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        more = {
            "cc": f"{told.major}.{told.minor}",
            "sms": told.multi_processor_count,
            "free": free,
            "total": total,
            "cudnn": torch.backends.cudnn.version(),
            "archs": " ".join(torch.cuda.get_arch_list()),
        }
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version[:6],
        **more,
    }


# ------------------------------------------------------------ attention


def qkv(heads: int, kv: int, tokens: int, capacity: int, size: int = 128) -> tuple[Any, Any, Any]:
    """Return one query, and views of `tokens` keys and values in buffers of `capacity`."""
    query = random(1, heads, 1, size)
    keys, values = random(1, kv, capacity, size), random(1, kv, capacity, size)
    return query, keys[:, :, :tokens], values[:, :, :tokens]


def _first_and_second_ms(tokens: int) -> tuple[float, float]:
    query, keys, values = qkv(32, 32, tokens, 512)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        attend(query, keys, values)
        if GPU:
            torch.cuda.synchronize()
        took.append((time.perf_counter() - began) * 1e3)
    return took[0], took[1]


def _medians(rows: list[tuple[float, float]]) -> list[float]:
    return [round(statistics.median(column), 3) for column in zip(*rows, strict=True)]


def attention_plan_for_each_length() -> Found:
    """Time the first and the second call of attention at new KV lengths; name torch's backend.

    Expected if cuDNN is the last choice, as in a worker: the flash backend without a mask, the
    memory-efficient one with a mask, and at most 0.1 ms more for a new KV length. Expected if only
    cuDNN is allowed, on sm90 and sm100: 20 to 40 ms for each new length.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    _first_and_second_ms(299)  # not measured: loads libraries
    found: Found = {
        "first, second ms": _medians([_first_and_second_ms(n) for n in range(300, 312)])
    }
    if GPU:
        query, keys, values = qkv(32, 32, 300, 512)
        mask = torch.zeros(1, 1, 1, 300, device=DEVICE, dtype=torch.bfloat16)
        for label, bias in (("choice without mask", None), ("choice with mask", mask)):
            choice = torch._fused_sdp_choice(query, keys, values, bias, 0.0, False)
            found[label] = SDPBackend(choice).name
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            rows = [_first_and_second_ms(n) for n in range(400, 412)]
        found["cuDNN: first, second ms"] = _medians(rows)
    return found


def attention_in_a_graph() -> Found:
    """Time attention as in decode mode `graph`, with a mask of shape (1, 1, 1, window).

    Expected: the time grows with the window, because only one block for each head runs, and the
    keys are not split among blocks. At a window of 8192 it is several times that of flash.
    """
    found: Found = {}
    for heads, kv in ((32, 32), (32, 8)):
        for window in (256, 2048, 8192) if GPU else (256,):
            key = f"{heads}/{kv} heads, window {window}"
            query, keys, values = qkv(heads, kv, window, window)
            rows = query.reshape(1, kv, heads // kv, 128)  # as transformers packs grouped heads
            bias = torch.zeros(1, 1, 1, window, device=DEVICE, dtype=torch.bfloat16)

            masked = partial(attend, rows, keys, values, attn_mask=bias)
            found[f"{key}, masked, us"] = round(graph_us([masked] * 8), 1)
            if GPU:
                found |= _flash(key, query, keys, values, window)
    return found


def _flash(key: str, query: Any, keys: Any, values: Any, window: int) -> Found:
    """Return the times of flash attention, which may split the work along the keys.

    In a CUDA graph, the number of keys in use must be a tensor on the device. Only torch's function
    for several sequences accepts that (`seqused_k`). It is tried with fewer keys than the window
    has: a large error then means that it ignores the number.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    grouped = query.shape[1] != keys.shape[1]
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        plain = graph_us([lambda: attend(query, keys, values, enable_gqa=grouped)] * 8)
    found: Found = {f"{key}, flash, us": round(plain, 1)}
    used = window - 37
    held = torch.tensor([used], dtype=torch.int32, device=DEVICE)
    rows = [one[0].transpose(0, 1) for one in (query, keys, values)]  # (tokens, heads, size)
    lengths = [
        torch.tensor(ends, dtype=torch.int32, device=DEVICE) for ends in ((0, 1), (0, window))
    ]

    def with_length() -> Any:
        return torch.ops.aten._flash_attention_forward(
            *rows, *lengths, 1, window, 0.0, False, False, seqused_k=held
        )

    try:
        found[f"{key}, flash with seqused_k, us"] = round(graph_us([with_length] * 8), 1)
        expected = attend(query, keys[:, :, :used], values[:, :, :used], enable_gqa=grouped)
        off = error_of(with_length()[0], expected[0].transpose(0, 1))
        found[f"{key}, flash with seqused_k, error"] = off
    except Exception as error:  # noqa: BLE001 - the question is whether this build has it
        found[f"{key}, flash with seqused_k"] = f"{type(error).__name__}: {error}"[:120]
    return found


# ------------------------------------------------------------ memory of captures


def each_capture_keeps_no_workspace() -> Found:
    """Capture graphs for growing KV lengths; return the allocated memory after each step.

    Expected, because all captures use one stream: the memory rises by one cuBLAS workspace (32 MiB
    on sm90, sm100 and sm120, 8 MiB elsewhere) with the first capture, and by little with each other
    capture.
    """
    if not GPU:
        return {"skipped": "no GPU"}
    from transformers import LlamaConfig, LlamaForCausalLM

    from quantchat.worker.decode.steps.graph import GraphStep

    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    step = GraphStep(LlamaForCausalLM(config).to(torch.bfloat16).to(DEVICE).eval())
    step.run(torch.zeros((1, 2040), dtype=torch.long, device=DEVICE))
    seen, took = [], []
    for length in (100, 300, 600, 900, 1100, 1400, 1700, 2000):
        for layer in step.cache.layers:
            layer.length = length
        began = time.perf_counter()
        step.run(torch.zeros((1, 1), dtype=torch.long, device=DEVICE))
        torch.cuda.synchronize()
        took.append(round((time.perf_counter() - began) * 1e3, 1))
        torch.cuda.empty_cache()
        seen.append(torch.cuda.memory_allocated() // 2**20)
    return {"allocated MiB": seen, "capture ms": took}


# ------------------------------------------------------------ products


def _rates(out: int, inputs: int, us: float, bytes_a_weight: float) -> Found:
    return {"us": round(us, 2), "GB/s": round(bytes_a_weight * out * inputs / us / 1e3)}


def _product(layers: Sequence[Callable[[Any], Any]], dense: Any, dtype: Any) -> Found:
    """Return the errors of `layers[0]` for 1 and for 512 rows, and the time of a layer for one row.

    `dense` is the exact weight, of shape (inputs, out) in float32.
    """
    inputs, out = dense.shape
    errors = []
    with torch.inference_mode():
        for rows in (1, 512 if GPU else 8):
            x = random(rows, inputs, dtype=dtype)
            errors.append(round(error_of(layers[0](x), x.float() @ dense), 5))
        x = random(1, 1, inputs, dtype=dtype)
        us = graph_us([partial(layer, x) for layer in layers])
    return {"errors of 1 and 512 rows": errors, **_rates(out, inputs, us, 0.5)}


def bf16_products() -> Found:
    """Time products in bfloat16, with which the quantized ones are compared.

    Expected: the large ones read their weights at 75 to 90 % of 4.3 TB/s.
    """
    found: Found = {}
    for out, inputs in SIZES:
        weights = [random(out, inputs) for _ in range(COPIES)]
        us = graph_us([partial(functional.linear, random(1, inputs), w) for w in weights])
        found[f"{out}x{inputs}"] = _rates(out, inputs, us, 2)
    return found


def bitsandbytes_nf4() -> Found:
    """Compare NF4 products with dequantizing and multiplying in float32; time them in a graph.

    Expected: the results agree, for 1 row and for 512 rows, and a graph can be captured.
    """
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit

    found: Found = {"library": type(bitsandbytes.cextension.lib).__name__}
    for nested in (False, True):
        for out, inputs in SIZES:
            layers = [_nf4(out, inputs, nested) for _ in range(COPIES)]
            weight = layers[0].weight
            dense = dequantize_4bit(weight.data, weight.quant_state).float().t()
            name = f"{out}x{inputs}{', double quant' if nested else ''}"
            found[name] = _product(layers, dense, torch.bfloat16)
    return found


def _nf4(out: int, inputs: int, nested: bool) -> Any:
    from bitsandbytes import nn

    layer = nn.Linear4bit(
        inputs,
        out,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        compress_statistics=nested,
    )
    return layer.to(torch.bfloat16).to(DEVICE).eval()


def _gptq_layer(kind: Any, out: int, inputs: int, dtype: Any, zero: int) -> tuple[Any, Any]:
    """Return a layer of class `kind` with random 4-bit weights, and its exact weight.

    The exact weight has the shape (inputs, out). `zero` is the zero point 8 as `kind` stores it.
    """
    group = 128
    words = torch.randint(-(2**31), 2**31 - 1, (inputs // 8, out), dtype=torch.int32, device=DEVICE)
    scales = (torch.rand(inputs // group, out, device=DEVICE) * 0.01 + 0.001).half()
    zeros = sum(zero << (4 * place) for place in range(8))
    layer = kind(
        bits=4,
        group_size=group,
        desc_act=False,
        sym=True,
        in_features=inputs,
        out_features=out,
        bias=False,
        pack_dtype=torch.int32,
        register_buffers=True,
        dtype=dtype,
    )
    layer = layer.to(DEVICE).eval()
    shifts = torch.arange(0, 32, 4, device=DEVICE, dtype=torch.int32).view(1, 8, 1)
    levels = ((words.unsqueeze(1) >> shifts) & 15).view(inputs, out)
    with torch.no_grad():
        layer.qweight.data = words
        layer.qzeros.data = torch.full(
            (inputs // group, out // 8),
            zeros - 2**32 if zeros >= 2**31 else zeros,
            dtype=torch.int32,
            device=DEVICE,
        )
        layer.scales.data = scales.to(dtype)
        layer.g_idx.data = torch.arange(inputs, dtype=torch.int32, device=DEVICE) // group
    expected = (levels.float() - 8) * scales.float().repeat_interleave(group, 0)
    layer.post_init()
    return layer, expected


def _gptq(kind: Any, dtype: Any, zero: int) -> Found:
    found: Found = {}
    for out, inputs in SIZES:
        made = [_gptq_layer(kind, out, inputs, dtype, zero) for _ in range(COPIES)]
        layers = [layer for layer, _ in made]
        found[f"{out}x{inputs}"] = _product(layers, made[0][1], dtype)
    return found


def gptq_triton() -> Found:
    """Check and time the Triton kernel, which `auto` chooses if nothing can be compiled.

    It unpacks the whole weight for each token. Expected: correct results, and slower than
    `bf16_products`. On a CPU, GPTQModel's torch kernel is used instead.
    """
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.tritonv2 import TritonV2Linear

    if not GPU:
        os.environ |= {"GPTQ_TORCH_TRITON_DEQUANT": "0", "TORCHDYNAMO_DISABLE": "1"}
    return _gptq(TritonV2Linear if GPU else TorchLinear, torch.bfloat16, 8)


def _marlin(dtype: Any) -> Found:
    if not GPU:
        return {"skipped": "no GPU"}
    from gptqmodel.nn_modules.qlinear.marlin import MarlinLinear

    from quantchat.worker.loaders.kernel_build import built

    began = time.perf_counter()
    problem = built("marlin", dtype, lambda stage: None, lambda progress: None)
    had_s = round(time.perf_counter() - began, 1)
    if problem:
        return {"error": problem, "built in s": had_s}
    return {"built in s": had_s, **_gptq(MarlinLinear, dtype, 7)}


def gptq_marlin_fp16() -> Found:
    """Check and time the Marlin kernel in float16.

    Expected: correct results, and 2.5 to 4 times the speed of the bf16 product. If `built in s` is
    a minute or more, the kernel was compiled in this run.
    """
    return _marlin(torch.float16)


def gptq_marlin_bf16() -> Found:
    """Check and time the Marlin kernel in bfloat16, which is compiled separately."""
    return _marlin(torch.bfloat16)


def the_end() -> Found:
    """Check that the GPU still works; return the memory that the probes have left allocated."""
    if not GPU:
        return {"answers": True}
    return {
        "answers": bool((random(2, 2) @ random(2, 2)).isfinite().all()),
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
    }


PROBES = {
    probe.__name__: probe
    for probe in (
        machine,
        attention_plan_for_each_length,
        attention_in_a_graph,
        each_capture_keeps_no_workspace,
        bf16_products,
        bitsandbytes_nf4,
        gptq_triton,
        gptq_marlin_fp16,
        gptq_marlin_bf16,
        the_end,
    )
}
