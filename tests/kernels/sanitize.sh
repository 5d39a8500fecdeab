#!/usr/bin/env bash
# Compiles the kernels with the address and undefined-behaviour sanitizers and runs their tests:
#   tests/kernels/sanitize.sh [arguments of pytest]
# The libraries in use are left alone. Leaks are not looked for: Python has many of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export SPFDE_KERNELS_DIR=$folder
export SPFDE_KERNELS_FLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python spfde/kernels/build.py
grep -q '"reason": null' "$folder/build.json"
compiler=${CXX:-g++}
preload="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1
LD_PRELOAD=$preload python -c "from spfde.kernels import status; assert status().available, status()"
LD_PRELOAD=$preload python -m pytest -q -p no:cacheprovider --timeout 1800 tests/kernels/test_convolution.py \
    tests/kernels/test_block.py tests/kernels/test_alone.py "$@"
