#!/bin/bash
# The Debian package and the container image, in bare systems: what is built in one is installed in another that holds nothing.
#
#   tests/check-deb.sh [bookworm] [trixie]        default: both; the image is made from trixie
#   WORKTREE=1   the files as they lie here, not the last commit
#   KEEP=1       leaves the systems in tests/fresh for a look
#   ONLY=image   without the packages
#
# No service manager runs there, as in a container or while a system image is made: maintainer scripts must bear that.
# Root only; tests/lib/roots.sh says what the systems are.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/lib/roots.sh
. tests/lib/roots.sh

port=18090
passed=0
failed=0

# expect WHAT COMMAND...
expect() {
    local what=$1

    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        say "FAILED: $what"
    fi
}

# The opposite, without output.
none() { ! "$@" >/dev/null 2>&1; }

# is PATH "OWNER:GROUP MODE": in the system.
is() { [ "$(inside stat -c '%U:%G %a' "$1" 2>&1)" = "$2" ] || { inside ls -ld "$1"; return 1; }; }

# says PATTERN COMMAND...: its output holds the pattern.
says() {
    local pattern=$1 out

    shift
    out=$("$@" 2>&1) || true
    grep -qE -- "$pattern" <<<"$out" || { printf 'no "%s" in:\n%s\n' "$pattern" "$out"; return 1; }
}

# as_user VARIABLE=VALUE... -- COMMAND...: as the service runs it, as far as that goes without a service manager.
as_user() {
    local vars=()

    while [ "$1" != -- ]; do
        vars+=("$1")
        shift
    done
    shift
    inside setpriv --reuid chatmux --regid chatmux --clear-groups --inh-caps=-all \
        env --chdir=/ ${vars[@]+"${vars[@]}"} "$@"
}

# as_container VARIABLE=VALUE... -- COMMAND...: as root, as the image's first process runs.
as_container() {
    local vars=()

    while [ "$1" != -- ]; do
        vars+=("$1")
        shift
    done
    shift
    inside env --chdir=/data ${vars[@]+"${vars[@]}"} "$@"
}

in_container() { container=1 "$@"; }

# serves VARIABLE=VALUE... -- ARGUMENT...: the gateway starts, calls itself healthy, and ends when told; in_container through the image's entry.
serves() {
    local log=$work/serve.log vars=() ok=1 as=as_user program=chatmux

    [ -z "${container:-}" ] || as=as_container program=/usr/lib/chatmux/entry
    while [ "$1" != -- ]; do
        vars+=("$1")
        shift
    done
    shift
    set -m
    $as ${vars[@]+"${vars[@]}"} -- $program serve "$@" >"$log" 2>&1 </dev/null &
    daemon=$!
    set +m
    for _ in $(seq 50); do
        if $as ${vars[@]+"${vars[@]}"} -- chatmux status "$@" >>"$log" 2>&1; then
            ok=0
            break
        fi
        sleep 0.1
    done
    kill -TERM -- "-$daemon" 2>/dev/null || ok=1
    wait "$daemon" || true # the shell around it heard the signal, too
    daemon=
    for _ in $(seq 100); do
        grep -q 'app *stopped' "$log" && break
        sleep 0.1
    done
    grep -q 'app *stopped' "$log" || ok=1
    [ $ok -eq 0 ] || cat "$log"
    return $ok
}

# build_deb SUITE: two revisions of the package, into tests/fresh.
build_deb() {
    local log=$work/$1.deb.log revision

    enter "$1" "$1-build"
    bring_sources
    for revision in 1 2; do
        inside env REVISION=$revision make deb >"$log" 2>&1 </dev/null || { tail -n 30 "$log"; die "$1: make deb failed"; }
        cp "$root"/root/chatmux/build/deb/chatmux_*-"$revision"+deb*.deb "$work/chatmux-$revision-$1.deb"
    done
    leave
}

# install_deb PACKAGE: with everything it depends on, and no questions.
install_deb() {
    cp "$1" "$root/root/chatmux.deb"
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends /root/chatmux.deb \
        >"$work/apt.log" 2>&1 </dev/null || { tail -n 30 "$work/apt.log"; return 1; }
    none grep -iE 'warning|failed|error' "$work/apt.log" || { grep -iE 'warning|failed|error' "$work/apt.log"; return 1; }
}

# Names of ours outside of what the package brings.
leftovers() { inside find / -xdev \( -path /proc -o -path /root \) -prune -o -iname '*chatmux*' -print; }

check_package() {
    local suite=$1 conf=/etc/chatmux/chatmux.ini wants=/etc/systemd/system/multi-user.target.wants/chatmux.service

    enter "$suite" "$suite-deb"
    inside apt-get update -q >/dev/null 2>&1
    expect "$suite: installs" install_deb "$work/chatmux-1-$suite.deb"
    expect "$suite: every library is there" none grep 'not found' <(inside ldd /usr/bin/chatmux)
    expect "$suite: the user exists" inside getent passwd chatmux >/dev/null
    expect "$suite: rights of the folder" is /etc/chatmux "root:chatmux 750"
    expect "$suite: rights of the file" is $conf "root:chatmux 640"
    expect "$suite: the service is enabled" inside test -L $wants
    expect "$suite: the socket is not" none inside test -e /etc/systemd/system/sockets.target.wants/chatmux.socket
    expect "$suite: the file is fine" says '^/etc/chatmux/chatmux.ini: fine' as_user -- chatmux check
    inside install -d -o chatmux -g chatmux -m 700 /var/lib/chatmux
    expect "$suite: it serves" serves STATE_DIRECTORY=/var/lib/chatmux -- -c $conf --listen 127.0.0.1:$port
    expect "$suite: the manual page" says 'OpenAI-compatible' inside zcat /usr/share/man/man1/chatmux.1.gz

    inside sh -c "echo '# mine' >>$conf && echo kept >/var/lib/chatmux/state"
    expect "$suite: upgrades" install_deb "$work/chatmux-2-$suite.deb"
    expect "$suite: the upgrade leaves the configuration alone" says '^# mine$' inside tail -n 1 $conf
    expect "$suite: its rights too" is $conf "root:chatmux 640"
    expect "$suite: the second revision is there" says '^0.*-2\+deb' inside dpkg-query -W -f "\${Version}" chatmux

    expect "$suite: removes" inside dpkg --remove chatmux >/dev/null
    expect "$suite: a removal takes the program" none inside test -e /usr/bin/chatmux
    expect "$suite: a removal keeps the configuration" says '^# mine$' inside tail -n 1 $conf
    expect "$suite: a removal keeps the state" inside test -e /var/lib/chatmux/state
    expect "$suite: installs again" install_deb "$work/chatmux-2-$suite.deb"
    expect "$suite: with the old configuration" says '^# mine$' inside tail -n 1 $conf
    expect "$suite: purges" inside dpkg --purge chatmux >/dev/null
    expect "$suite: a purge leaves nothing" [ -z "$(leftovers)" ]
    leftovers
    leave
}

# As the Dockerfile: two systems, of which the second is the image.
check_image() {
    local suite=trixie log=$work/image.log env=(STATE_DIRECTORY=/data CHATMUX_CONTAINER=yes "PORT=$port") data=/app/hixai2api/data

    enter $suite $suite-image
    bring_sources
    { inside packaging/image.sh deps && inside packaging/image.sh build /out; } >"$log" 2>&1 </dev/null ||
        { tail -n 30 "$log"; die "image.sh build failed"; }
    tar -C "$root/out" -cf "$work/image.tar" .
    leave
    enter $suite $suite-image
    tar -C "$root" --no-same-owner -xf "$work/image.tar"
    cp packaging/image.sh "$root/tmp/image.sh"
    expect "image: the runtime part" inside sh -c '/tmp/image.sh runtime >/tmp/log 2>&1 || { tail -n 20 /tmp/log; false; }'
    expect "image: user and state" is /data "chatmux:chatmux 700"
    expect "image: refuses to start without a key, and says what to do" \
        says 'clients need no key: set auth.keys.*CHATMUX_AUTH_KEYS' as_user "${env[@]}" -- chatmux
    expect "image: serves with a key, and its health check agrees" serves "${env[@]}" CHATMUX_AUTH_KEYS=sk-image-4711 --
    expect "image: the health check fails without a gateway" none as_user "${env[@]}" CHATMUX_AUTH_KEYS=k -- chatmux status
    inside chown root:root /data
    expect "image: its entry takes the folder over and serves" \
        in_container serves "${env[@]}" CHATMUX_AUTH_KEYS=sk-image-4711 --
    expect "image: the folder is the gateway's" is /data "chatmux:chatmux 700"
    inside install -d -m 755 $data
    expect "image: in the place of hixai2api, with a folder that Docker made" \
        in_container serves "${env[@]}" MYSQL_DSN=a:b@tcp\(db:3306\)/c BACKEND_SECRET=123456 TZ=Asia/Shanghai --
    expect "image: its state lies below that folder" is $data/chatmux "chatmux:chatmux 700"
    expect "image: the folder itself stays root's" is $data "root:root 755"
    expect "image: local time" says '[+]0800' inside env TZ=Asia/Shanghai date +%z
    rm -f "$work/image.tar"
    leave
}

# What the Dockerfile copies is there, and .dockerignore does not keep it back.
check_dockerfile() {
    local source

    while read -r source; do
        expect "Dockerfile: $source exists" [ -e "$source" ]
        [ "$source" = . ] && continue
        expect "Dockerfile: .dockerignore lets $source through" \
            grep -qxF -e "!$source" -e "!${source%%/*}" .dockerignore
    done < <(awk '$1 == "COPY" && $2 !~ /^--from/ { for (i = 2; i < NF; i++) print $i }' Dockerfile)
}

check_machine
[ $# -gt 0 ] || set -- bookworm trixie
check_dockerfile
for suite; do
    bare_system "$suite"
    if [ "${ONLY:-}" != image ]; then
        build_deb "$suite"
        check_package "$suite"
        say "$suite: package done"
    fi
    [ "$suite" != trixie ] || check_image
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
