"""The machine, the variants and the memory that a snapshot records, as parts of a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quantchat.document.document import Block, Table, paragraph, row, variant_table
from quantchat.document.figures import UNKNOWN, load_parts, seconds, size, when
from quantchat.snapshot.schema import Snapshot, TurnRecord, VariantRecord
from quantchat.system.gpus import GpuSample
from quantchat.system.process_memory import SOURCES


def header(snapshot: Snapshot) -> list[Block]:
    """Return the name of `snapshot`, its time and the machine, a paragraph each."""
    return [
        paragraph((snapshot.name, "heading")),
        *(paragraph(line) for line in machine(snapshot)),
    ]


def machine(snapshot: Snapshot) -> list[str]:
    """Return when `snapshot` was saved and on what machine, a line each."""
    environment, device = snapshot.environment, snapshot.environment.device
    host = device.host
    return [
        f"saved {when(snapshot.created)} by quantchat {snapshot.quantchat}",
        f"{environment.python} on {environment.os}",
        f"{host.cpu}, {host.cores} cores, "
        f"RAM {size(host.ram_used)} of {size(host.ram_total)} in use",
        *(_gpu(gpu, device.driver) for gpu in device.gpus),
        *([f"no GPU: {device.no_gpu}"] if device.no_gpu else []),
    ]


def variants_table(snapshot: Snapshot) -> Table:
    """Return a table of what each variant really ran with, as its worker reported it."""
    variants = [v for v in snapshot.variants if v.model_info or v.failure]
    rows = [
        row("engine", variants, _ran("engine")),
        row("model", variants, _ran("model")),
        row("architecture", variants, _ran("architecture")),
        row("kernel", variants, _ran("kernel")),
        row("dtype", variants, _ran("dtype")),
        row("device", variants, _device),
        row("attention", variants, _ran("attention_used")),
        row("caution", variants, _caution),
        row("decoding", variants, _ran("decoding")),
        row("parameters", variants, lambda v: v.model_info and _count(v.model_info.parameters)),
        row("bits per weight", variants, _bits),
        row("context", variants, _context),
        row("prompts", variants, _prompts),
        row("checkpoint", variants, lambda v: v.model_info and v.model_info.checkpoint_hash[:12]),
        row("adapter", variants, _adapter),
        row("libraries", variants, _libraries),
        row("load time", variants, _load),
        row("note", variants, lambda v: v.note),
        row("failure", variants, lambda v: v.failure and v.failure.reason),
    ]
    return variant_table("What ran", [variant.label for variant in variants], rows)


def memory_table(snapshot: Snapshot) -> Table:
    """Return the memory ledger of each variant that was loaded."""
    variants = [v for v in snapshot.variants if v.ledger]
    rows = [
        row("weights", variants, _bytes("weights")),
        row("by dtype", variants, _parts("weights_by_dtype"), part=True),
        row("of which scales, zeros …", variants, _parts("overhead"), part=True),
        row("by device", variants, _parts("weights_by_device"), part=True),
        row("predicted", variants, _predicted, part=True),
        row("draft", variants, _draft),
        row("KV cache", variants, _bytes("kv_cache")),
        row("other live tensors", variants, _bytes("other_live")),
        row("allocator slack", variants, _bytes("slack")),
        row("reserved, by device", variants, _parts("reserved_by_device")),
        row("non-torch", variants, _bytes("non_torch")),
        row("process total", variants, _bytes("process")),
        row("peak", variants, lambda v: _peak(v, snapshot.turns)),
        row("process, part known", variants, _known_part),
        row("source of the total", variants, _source),
    ]
    return variant_table("Memory", [variant.label for variant in variants], rows)


def _context(variant: VariantRecord) -> str | None:
    length = variant.model_info.context_length if variant.model_info else 0
    return f"{length} tokens" if length > 0 else None


# ------------------------------------------------------------ cells

_Read = Callable[[VariantRecord], str]


def _ran(field: str) -> _Read:
    return lambda variant: getattr(variant.model_info, field) if variant.model_info else ""


def _bytes(field: str) -> _Read:
    return lambda variant: size(getattr(variant.ledger, field)) if variant.ledger else ""


def _parts(field: str) -> _Read:
    return lambda variant: _sizes(getattr(variant.ledger, field)) if variant.ledger else ""


def _draft(variant: VariantRecord) -> str:
    return size(variant.ledger.draft) if variant.ledger and variant.ledger.draft else ""


def _adapter(variant: VariantRecord) -> str | None:
    ran = variant.model_info
    return f"{ran.adapter} ({ran.adapter_hash[:12]})" if ran is not None and ran.adapter else None


def _caution(variant: VariantRecord) -> str:
    """Return warnings about options that can run any code, and about misleading figures."""
    ran = variant.model_info
    allowed = [
        ("THE MODEL'S OWN CODE RAN (trust_remote_code)", ran is not None and ran.trusted_code),
        ("PICKLED WEIGHTS WERE ALLOWED (allow_pickle)", ran is not None and ran.pickle_allowed),
    ]
    cautions = [text for text, applies in allowed if applies]
    if ran is not None and ran.format_deviation:
        cautions.append(ran.format_deviation)
    if ran is not None and ran.slow_kernel:
        cautions.append(f"SLOW KERNEL: {ran.slow_kernel}")
    return ", ".join(cautions)


def _bits(variant: VariantRecord) -> str:
    bits = variant.model_info.bits_per_weight if variant.model_info else 0
    return f"{bits:.2f}" if bits else ""


def _device(variant: VariantRecord) -> str:
    if variant.model_info is None:
        return ""
    threads = (
        f", {variant.model_info.threads} threads" if variant.model_info.device == "cpu" else ""
    )
    return f"{variant.model_info.where} ({variant.model_info.device_name}{threads})"


def _prompts(variant: VariantRecord) -> str:
    if variant.model_info is None:
        return ""
    if not variant.model_info.chat_template:
        return "plain completion, no template"
    other = variant.model_info.tokenizer
    return f"chat template of {other}" if other else "chat template"


def _libraries(variant: VariantRecord) -> str:
    if variant.model_info is None:
        return ""
    return ", ".join(f"{name} {version}" for name, version in variant.model_info.libraries.items())


def _load(variant: VariantRecord) -> str:
    load = variant.load
    if load is None:
        return ""
    device = variant.model_info.device if variant.model_info else ""
    parts = load_parts(device, load.import_s, load.weights_s, load.warmup_s)
    split = ", ".join(f"{name} {seconds(took)}" for name, took in parts)
    return f"{seconds(load.total_s)} ({split})"


def _sizes(parts: dict[str, int]) -> str:
    largest_first = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size(count)}" for name, count in largest_first if count)


def _peak(variant: VariantRecord, turns: Iterable[TurnRecord]) -> str:
    """Return the most memory that the variant used, and when: while loading, or in which turn."""
    ledger = variant.ledger
    if ledger is None or ledger.peak < 0:
        return ""
    if ledger.peak_at_ns < 0:
        return size(ledger.peak)
    begun = [
        (answer.received_ns, turn)
        for turn in turns
        for answer in turn.answers
        if answer.variant == variant.label and 0 < answer.received_ns <= ledger.peak_at_ns
    ]
    if not begun:
        return f"{size(ledger.peak)}, while loading"
    _, turn = max(begun, key=lambda one: one[0])
    measured = f"round {turn.round}, prompt {turn.task}"
    return f"{size(ledger.peak)}, in {measured if turn.round else f'turn {turn.number}'}"


def _predicted(variant: VariantRecord) -> str:
    """Return the size of the weights as predicted from the headers, and its error in percent."""
    predicted, ledger = variant.predicted, variant.ledger
    if predicted is None or ledger is None or ledger.weights <= 0:
        return ""
    off = round(predicted.weights / ledger.weights - 1, 3) + 0.0  # no -0.0
    return f"{size(predicted.weights)} ({off:+.1%})"


def _known_part(variant: VariantRecord) -> str:
    """Return the part of the process' memory that is known, if its total is not; else empty."""
    memory, ledger = variant.memory, variant.ledger
    if memory is None or ledger is None or memory.bytes in (None, ledger.process):
        return ""
    return size(memory.bytes)


def _source(variant: VariantRecord) -> str:
    if variant.memory is None:
        return ""
    source = SOURCES.get(variant.memory.source, variant.memory.source)
    return f"{source}: {variant.memory.reason}" if variant.memory.reason else source


def _count(parameters: int) -> str:
    if parameters <= 0:
        return ""
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _gpu(gpu: GpuSample, driver: str | None) -> str:
    parts = [
        f"GPU {gpu.index}: {gpu.name}",
        f"driver {driver or UNKNOWN}",
        f"VRAM {size(gpu.memory_used)} of {size(gpu.memory_total)} in use",
    ]
    if gpu.sm_clock_mhz is not None:
        parts.append(f"SM clock {gpu.sm_clock_mhz} MHz")
    if gpu.throttle:
        parts.append(f"throttled by {', '.join(gpu.throttle)}")
    return ", ".join(parts)
