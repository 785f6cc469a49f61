#!/bin/sh
# The steps of the container image; the Dockerfile runs them, and tests/check-deb.sh in a bare system of the same release.
#
#   image.sh deps          what building needs (only deps.sh has to be there)
#   image.sh build DIR     the program and its files into DIR
#   image.sh runtime       in the final image: libraries, user 10001, /data; DIR was copied to / before
set -eu

here=$(cd "$(dirname "$0")" && pwd)

case ${1:-} in
deps)
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends make
    "$here/../third_party/deps.sh" build
    ;;
build)
    make -C "$here/.." install DESTDIR="$2" PREFIX=/usr
    install -D -m 755 "$here/entry.sh" "$2/usr/lib/chatmux/entry"
    # no service manager and no manual pages in a container
    rm -rf "$2/usr/lib/systemd" "$2/usr/lib/sysusers.d" "$2/usr/share/man" "$2/usr/share/doc"
    ;;
runtime)
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ca-certificates \
        libcurl4t64 libllhttp9.2 libsqlite3-0 libssl3t64 libuv1t64 libyaml-0-2 libyyjson0 tzdata
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
    # a number that does not change, for the owners of bind mounts
    groupadd --gid 10001 chatmux
    useradd --uid 10001 --gid chatmux --home-dir /data --no-create-home --shell /usr/sbin/nologin chatmux
    install -d -o chatmux -g chatmux -m 0700 /data
    chatmux version
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 1
    ;;
esac
