#!/bin/bash
# Proves that the two commands need nothing but git and make: `make run` and `make check` in bare systems.
#
#   tests/check-fresh.sh [bookworm] [trixie]        default: both
#   WORKTREE=1   the files as they lie here, not the last commit
#   KEEP=1       leaves the systems in tests/fresh for a look
#
# Root only. The bare systems are kept as archives in tests/fresh, so the next time takes less. Taken over from this
# machine are its mirror, its name servers, its proxies and its own certificate authorities, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/tests/fresh
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
daemon= # process group of a `make run` that is under way
root=   # the system we are in

say() { printf 'fresh: %s\n' "$*"; }

die() {
    say "$*" >&2
    exit 1
}

leave() {
    if [ -n "$daemon" ]; then
        kill -TERM -- "-$daemon" 2>/dev/null || true
        daemon=
    fi
    [ -n "$root" ] || return 0
    for mount in dev/pts dev/shm proc; do
        mountpoint -q "$root/$mount" && umount -l "$root/$mount"
    done
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"
    root=
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

mirror() {
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
        awk '$1 == "Packages" && $2 == "main" && $3 ~ /^(bookworm|trixie|(old)*stable)$/ && !uri { uri = $4 }
             END { print uri }'
}

# The archive of a system that holds git, make and what every Debian has.
bare_system() {
    local suite=$1 log=$work/$1.debootstrap.log

    [ ! -e "$work/$suite.tar" ] || return 0
    say "$suite: debootstrap with git and make only"
    rm -rf --one-file-system "$work/$suite.new"
    debootstrap --variant=minbase --include=git,make --keyring="$keyring" "$suite" "$work/$suite.new" \
        "$(mirror)" >"$log" 2>&1 || die "debootstrap failed, see $log"
    rm -rf "$work/$suite.new"/var/cache/apt/archives/*.deb
    tar -C "$work/$suite.new" -cf "$work/$suite.tar.new" .
    mv "$work/$suite.tar.new" "$work/$suite.tar"
    rm -rf --one-file-system "$work/$suite.new"
}

enter() {
    root=$work/$1
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    tar -C "$root" -xf "$work/$1.tar"
    mount -t proc proc "$root/proc"
    mkdir -p "$root/dev/pts" "$root/dev/shm"
    mount -t devpts devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"

    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    apt-config dump | grep -iE '^Acquire::https?::Proxy' >"$root/etc/apt/apt.conf.d/90host" || true
    mkdir -p "$root/usr/local/share/ca-certificates"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \;

    if [ -n "${WORKTREE:-}" ]; then
        mkdir "$root/root/chatmux"
        git ls-files -co --exclude-standard | while read -r file; do [ -e "$file" ] && echo "$file"; done |
            tar -cf - -T - | tar -C "$root/root/chatmux" --no-same-owner -xf -
    else
        git clone -q --no-hardlinks . "$root/root/chatmux"
    fi
}

# inside COMMAND...: in the system, in the clone.
inside() {
    local pass=() name

    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY npm_config_registry; do
        [ -z "${!name:-}" ] || pass+=("$name=${!name}")
    done
    [ -z "${NODE_EXTRA_CA_CERTS:-}" ] || pass+=(NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt)
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb ${pass[@]+"${pass[@]}"} \
        chroot "$root" sh -c 'cd /root/chatmux && exec "$@"' sh "$@"
}

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

[ "$(id -u)" -eq 0 ] || die "must be root, to mount and chroot"
[ -n "$(mirror)" ] || die "this machine's apt sources name no Debian mirror"
[ $# -gt 0 ] || set -- bookworm trixie
mkdir -p "$work"
passed=0
failed=0
for suite; do
    bare_system "$suite"
    enter "$suite"
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
