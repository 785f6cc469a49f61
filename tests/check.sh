#!/bin/sh
# Runs parts of the tests and closes with their totals, "N passed, N failed", alone on the last line.
#
#   tests/check.sh PART:MODE...       PART = unit sim fuzz e2e soak simsoak, MODE = the build it runs
#
# A part that ran nothing has failed: silence is not success.
set -u
cd "$(dirname "$0")/.." || exit 1

build=${BUILD:-build}
logs=$build/logs
passed=0
failed=0
summary=

mkdir -p "$logs"

# Fatal, with a trace, and never hidden by a test that ignores the exit code.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"

absolute() {
    case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
    esac
}

# settle PART MODE OK BAD SECONDS STATUS: adds a part to the totals.
settle() {
    bad=$4
    if [ "$bad" -eq 0 ] && [ "$6" -ne 0 ]; then
        echo "$1 ($2): ended with status $6"
        bad=1
    elif [ $(($3 + $4)) -eq 0 ]; then
        echo "$1 ($2): ran no test"
        bad=1
    fi
    passed=$((passed + $3))
    failed=$((failed + bad))
    summary="$summary$(printf '%-5s %-8s %5d passed %3d failed %4d s' "$1" "$2" "$3" "$bad" "$5")
"
}

# Unit tests mostly wait for clocks: the suites of a mode run four at a time, and those of all modes at the same time.
# The slow ones, of the store and of runs, have names from the end of the alphabet: they go first.
# start_unit MODE, then run_unit MODE.
start_unit() (
    suites=$logs/suites-$1
    rm -rf "$suites"
    mkdir -p "$suites"
    [ "$1" = release ] || export CK_TIMEOUT_MULTIPLIER="${CK_TIMEOUT_MULTIPLIER:-5}"
    # shellcheck disable=SC2016 # for the inner shell
    "$build/$1/unit" --list | sort -r |
        xargs -P 4 -I '{}' sh -c 'SUITE={} "$0" >"$1/{}" 2>&1' "$build/$1/unit" "$suites"
    status=$?
    cat "$suites"/* >"$logs/unit-$1"
    echo "$status" >"$logs/unit-$1.status"
)

# Check's closing summary: "100%: Checks: 25, Failures: 0, Errors: 0".
run_unit() {
    log=$logs/unit-$1
    until [ -s "$log.status" ]; do sleep 0.2; done
    status=$(cat "$log.status")
    cat "$log"
    # shellcheck disable=SC2046 # two numbers
    set -- $(awk -F'[ ,]+' '/^[0-9]+%: Checks: / { all += $3; bad += $5 + $7 }
        END { print all - bad, bad + 0 }' "$log")
    ok=$1 bad=$2
}

# simulate MODE EXCHANGES SEED...: each seed is one test.
simulate() {
    sim=$build/$1/sim exchanges=$2
    ok=0 bad=0 status=0
    shift 2
    for seed; do
        if "$sim" "$seed" "$exchanges"; then
            ok=$((ok + 1))
        else
            bad=$((bad + 1))
        fi
    done
}

# Always the same ones, and one that nobody has seen yet.
run_sim() {
    simulate "$1" 20000 1 2 3 "$(date +%s)"
}

run_simsoak() {
    simulate "$1" 250000 1 2 3 4 5 6 7 "$(date +%s)"
}

# Each input of a corpus is one test; a crash ends the replay of its target.
run_fuzz() {
    ok=0 bad=0 status=0
    for source in tests/fuzz/fuzz_*.c; do
        [ -e "$source" ] || continue
        name=$(basename "$source" .c)
        name=${name#fuzz_}
        log=$logs/fuzz-$name
        if "$build/$1/fuzz/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
            ok=$((ok + $(sed -n 's/^replayed \([0-9]*\) inputs$/\1/p' "$log")))
            printf '%s: ' "$name"
            tail -n 1 "$log"
        else
            bad=$((bad + 1))
            cat "$log"
            echo "$name: failed"
        fi
    done
}

# run_node MODE NAME FILE...: Node's runner; people read one report, the totals come from the other. $at_once files, each for $limit_ms.
run_node() {
    mode=$1 log=$logs/$2-$1
    shift 2
    for node in tests/node_modules/node-linux-*/bin/node; do :; done
    CHATMUX_BIN=$(absolute "$build/$mode/chatmux") CHATMUX_MODE=$mode "$node" --test \
        --test-concurrency="$at_once" --test-timeout="$limit_ms" --test-reporter=spec --test-reporter-destination=stdout \
        --test-reporter=tap --test-reporter-destination="$log" "$@"
    status=$?
    ok=$(sed -n 's/^# pass //p' "$log")
    bad=$(awk '/^# (fail|cancelled) / { n += $3 } END { print n + 0 }' "$log")
    ok=${ok:-0}
}

run_e2e() {
    limit_ms=120000
    at_once=$(($(nproc) * 3)) # they wait for clocks and for each other; sanitizers work for their time
    [ "$1" = release ] || at_once=$(($(nproc) * 2))
    # shellcheck disable=SC2086 # E2E may name several files
    run_node "$1" e2e ${E2E:-tests/e2e/*.test.mjs}
}

# MINUTES=30 is how long the steady load lasts (tests/soak/steady.test.mjs); one file after the other, as they watch memory and time.
run_soak() {
    ok=0 bad=0 status=0
    at_once=1 limit_ms=$(((${MINUTES:-30} + 10) * 60000))
    set -- "$1" tests/soak/*.test.mjs
    if [ -e "$2" ]; then
        mode=$1
        shift
        run_node "$mode" soak "$@"
    else
        echo "There are no long runs yet (tests/soak is empty)."
    fi
}

for part_mode; do
    case $part_mode in
    unit:*)
        rm -f "$logs/unit-${part_mode#*:}.status"
        start_unit "${part_mode#*:}" &
        ;;
    esac
done

for part_mode; do
    part=${part_mode%:*} mode=${part_mode#*:}
    printf '\n== %s (%s)\n' "$part" "$mode"
    begun=$(date +%s)
    "run_$part" "$mode"
    settle "$part" "$mode" "$ok" "$bad" $(($(date +%s) - begun)) "$status"
done

printf '\n%s%d passed, %d failed\n' "$summary" "$passed" "$failed"
[ "$failed" -eq 0 ]
