#!/bin/bash
# Proves that the two commands need nothing but git and make: `make run` and `make check` in bare systems.
#
#   tests/check-fresh.sh [bookworm] [trixie]        default: both
#   WORKTREE=1   the files as they lie here, not the last commit
#   KEEP=1       leaves the systems in tests/fresh for a look
#
# Root only; tests/lib/roots.sh says what the systems are.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/lib/roots.sh
. tests/lib/roots.sh

# One question to the demo, without any client installed.
answers() {
    local port=$1 body='{"model":"demo","messages":[{"role":"user","content":"hello from a bare system"}]}' reply

    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n' "$port" >&3
    printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#body}" "$body" >&3
    reply=$(timeout 10 cat <&3)
    exec 3>&-
    [[ $reply == "HTTP/1.1 200 "*"hello from a bare system"* ]]
}

# run_demo SUITE: `make run` until it answers; prints how long that took. Another port when 8080 is taken here.
run_demo() {
    local suite=$1 log=$work/$1.run.log begun=$SECONDS port=8080 args=()

    if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then
        port=18080
        args=("ARGS=--listen 127.0.0.1:$port")
    fi
    set -m # a process group of its own, to stop make and what it started together
    inside make run ${args[@]+"${args[@]}"} >"$log" 2>&1 </dev/null &
    daemon=$!
    set +m
    until answers "$port" 2>/dev/null; do
        kill -0 "$daemon" 2>/dev/null || { tail -n 30 "$log"; die "$suite: make run ended"; }
        [ $((SECONDS - begun)) -lt 900 ] || { tail -n 30 "$log"; die "$suite: no answer after 15 minutes"; }
        sleep 0.2
    done
    say "$suite: make run answered after $((SECONDS - begun)) s"
    kill -TERM -- "-$daemon"
    wait "$daemon" || true
    daemon=
}

check_machine
[ $# -gt 0 ] || set -- bookworm trixie
passed=0
failed=0
for suite; do
    bare_system "$suite"
    enter "$suite"
    bring_sources
    run_demo "$suite"
    run_demo "$suite" # nothing is missing any more: seconds
    begun=$SECONDS
    if inside make check >"$work/$suite.check.log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        say "$suite: make check took $((SECONDS - begun)) s: $(tail -n 1 "$work/$suite.check.log")"
    else
        failed=$((failed + 1))
        tail -n 40 "$work/$suite.check.log"
        say "$suite: make check failed, see $work/$suite.check.log"
    fi
    leave
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
