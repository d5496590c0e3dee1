#!/usr/bin/env bash
# The tests of the kernels, those for GPUs as loops on the CPU, compiled with AddressSanitizer and
# UndefinedBehaviorSanitizer: torch's arrays on a CPU are each in memory of their own, where a step
# beyond the end shows. Takes g++ and a minute. From the root of a checkout:
#
#     bash tests/ops/sanitize.sh
set -euo pipefail
folder="$(mktemp --directory)"
trap 'rm -r "$folder"' EXIT
export XDG_CACHE_HOME="$folder" PYTEST_DEBUG_TEMPROOT="$folder" # where the kernels are built anew
export CXX="$folder/g++" # which has the last word: with -O3 the checks take minutes to compile
cat > "$CXX" << 'END'
#!/bin/sh
exec g++ "$@" -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
END
chmod +x "$CXX"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
# Nothing is captured: what a sanitizer says before it ends the process would be lost. The tests of
# plain torch, and those that call the same kernels many times over, have nothing to add.
LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)" \
    python -m pytest -n auto --quiet --capture=no -k "not [torch and not opcheck and not gradcheck" \
    tests/ops/test_{mlstm,cuda,int8}.py
