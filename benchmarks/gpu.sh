#!/usr/bin/env bash
# All that only a GPU can show: the tests marked `cuda`, the benchmarks, and compute-sanitizer on the
# kernels. From the root of a checkout, in an environment with skdiscovery[cuda,test]:
#
#     SKDISCOVERY_DATA=path/to/data bash benchmarks/gpu.sh results [tests|ops|pretrain|transform|generate|sanitize ...]
#
# does the parts named, or all. What fails does not keep the rest from being measured, and shows in
# the end.
set -uo pipefail
out=${1:?the folder for the results is missing}
shift
parts=("$@")
[ $# -gt 0 ] || parts=(tests ops pretrain transform generate sanitize)
mkdir -p "$out"
failed=()

run() { # the name of what is done and of its file, and the command
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$out/$name.txt" || failed+=("$name")
}

run build python -m skdiscovery.ops.build --backend cuda
run versions python -c "import skdiscovery; skdiscovery.show_versions()"
for part in "${parts[@]}"; do
    case $part in
        tests) run tests python -m pytest -n 8 -m cuda tests ;;
        ops)
            run ops python benchmarks/bench_ops.py --hidden-size 512 1024 2048 4096 \
                --batch-size 1 32 128 256 --repetitions 3 --json "$out/ops.json"
            ;;
        pretrain)
            run pretrain python benchmarks/bench_pretrain.py --hidden-size 512 1024 2048 4096 \
                --batch-size 256 --seq-length 256 --n-steps 20 --repetitions 3
            ;;
        transform)
            run transform python benchmarks/bench_transform.py --hidden-size 512 1024 2048 4096 \
                --n-documents 1000 --repetitions 2 --json "$out/transform.json"
            ;;
        generate)
            run generate python benchmarks/bench_generate.py --hidden-size 512 1024 2048 4096 \
                --json "$out/generate.json"
            ;;
        sanitize)
            sanitized=(--target-processes all --error-exitcode 9 python -m pytest -m cuda -q
                -p no:randomly tests/ops/test_cuda.py)
            run memcheck compute-sanitizer --tool memcheck "${sanitized[@]}"
            run initcheck compute-sanitizer --tool initcheck "${sanitized[@]}"
            # Again with each array in memory of its own, where a step beyond its end shows; CUDA
            # graphs need torch's allocator.
            run memcheck-alone env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
                compute-sanitizer --tool memcheck "${sanitized[@]}" -k few_steps
            ;;
        *)
            echo "unknown part: $part"
            failed+=("$part")
            ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
