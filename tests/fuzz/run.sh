#!/bin/sh
# Fuzzes each target for a while: tests/fuzz/run.sh SECONDS NAME...
# What it finds lands in build/fuzz/found/NAME; new inputs worth keeping go to build/fuzz/corpus/NAME.
# To keep one for good, copy it to tests/fuzz/corpus/NAME, where `make check` replays it.
set -u
cd "$(dirname "$0")/../.." || exit 1

seconds=$1
shift
build=${BUILD:-build}/fuzz
failed=0
for name; do
    mkdir -p "$build/corpus/$name" "$build/found/$name" "tests/fuzz/corpus/$name"
    echo "== $name, $seconds s"
    "$build/fuzz/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -verbosity=0 -artifact_prefix="$build/found/$name/" "$build/corpus/$name" "tests/fuzz/corpus/$name" ||
        { failed=$((failed + 1)); echo "$name: failed, see $build/found/$name"; }
done
echo "$(($# - failed)) passed, $failed failed"
[ $# -gt 0 ] && [ "$failed" -eq 0 ]
