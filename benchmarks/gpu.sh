#!/usr/bin/env bash
# All that only a GPU can show: the tests marked `cuda`, compute-sanitizer on the kernels, and the
# benchmarks. From the root of a checkout, in an environment with skdiscovery[cuda,test]:
#
#     SKDISCOVERY_DATA=path/to/data bash benchmarks/gpu.sh results
set -euo pipefail
out=${1:?the folder for the results is missing}
mkdir -p "$out"

python -m skdiscovery.ops.build --backend cuda
python -c "import skdiscovery; skdiscovery.show_versions()" | tee "$out/versions.txt"
python -m pytest -m cuda tests | tee "$out/tests.txt"
if command -v compute-sanitizer; then
    for tool in memcheck racecheck initcheck; do
        compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 \
            python -m pytest -m cuda tests/ops/test_cuda.py -p no:randomly -q | tee "$out/$tool.txt"
    done
fi

python benchmarks/bench_ops.py --hidden-size 512 1024 2048 4096 --batch-size 1 32 128 256 \
    --json "$out/ops.json" | tee "$out/ops.txt"
python benchmarks/bench_pretrain.py --hidden-size 1024 2048 4096 --batch-size 256 \
    --seq-length 256 | tee "$out/pretrain.txt"
python benchmarks/bench_transform.py --hidden-size 1024 4096 --n-documents 5000 \
    --json "$out/transform.json" | tee "$out/transform.txt"
python benchmarks/bench_generate.py --json "$out/generate.json" | tee "$out/generate.txt"
