#!/bin/sh
# Finds or installs what chatmux is built, tested and linted with; README.md beside it has the reasons.
#
#   deps.sh [build] [test] [lint] [fuzz] [bench] [deb] [fresh]      (default: build)
#
# Nothing missing: returns at once and says nothing. Otherwise: one line for each thing that is
# missing and why, then the distribution's own packages through apt-get (as root, or with sudo).
# What Debian 12 has too old or not at all is unpacked into third_party/prefix, so that the machine's
# package sources and libraries stay as they are.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
prefix=$here/prefix
tests=$(dirname "$here")/tests
clang=19 # the newest version that Debian 12 and Debian 13 both carry in main
log=

say() { printf 'deps: %s\n' "$*"; }

die() {
    printf 'deps: %s\n' "$*" >&2
    exit 1
}

# --- what is there ------------------------------------------------------------------------------

has_cmd() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps it where only root's PATH looks.
has_nginx() { has_cmd nginx || [ -x /usr/sbin/nginx ]; }

has_file() { [ -e "$1" ]; }

has_pkg() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# has_lib NAME FLOOR: as pkg-config sees it, the private prefix first.
has_lib() {
    has_cmd pkg-config || return 1
    PKG_CONFIG_PATH="$prefix/lib/pkgconfig" pkg-config --atleast-version="$2" "$1" 2>/dev/null
}

is_bookworm() { grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release 2>/dev/null; }

# The three that Debian 12 has too old or not at all.
has_new_libs() { has_lib libcurl 8.11 && has_lib libllhttp 9.2 && has_lib yyjson 0.10; }

# --- packages of the distribution -----------------------------------------------------------------

missing= # what need() has found missing so far

# need PACKAGE WHY PROBE [ARG]...: notes the package unless the probe succeeds.
need() {
    package=$1 why=$2
    shift 2
    "$@" && return 0
    say "$package: $why"
    missing="$missing $package"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has_cmd sudo; then
        sudo "$@"
    else
        die "neither root nor sudo; run as root: $*"
    fi
}

# Output goes to $log, which is shown when something fails; waits for another apt to finish.
apt() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
        as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y -o DPkg::Lock::Timeout=120 \
            -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 && return 0
        grep -q 'Could not get lock' "$log" || break
        sleep 10 # the lock of the package lists has no timeout of its own
    done
    tail -n 20 "$log" >&2
    return 1
}

lists_are_fresh() {
    [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -7 2>/dev/null)" ]
}

install_missing() {
    [ -n "$missing" ] || return 0
    has_cmd apt-get || die "no apt-get here; install by other means:$missing"
    log=$(mktemp)
    say "installing$missing"
    lists_are_fresh || apt update || die "apt-get update failed; is there a network?"
    # A mirror drops superseded versions, so lists of last week may name files that are gone.
    # shellcheck disable=SC2086 # a list of names
    apt install --no-install-recommends $missing ||
        { apt update && apt install --no-install-recommends $missing; } ||
        die "apt-get could not install:$missing"
    rm -f "$log"
    missing=
}

# --- third_party/prefix: newer libraries for Debian 12 ----------------------------------------------

# The mirror that this machine uses for its own release.
machine_mirror() {
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
        awk '$1 == "Packages" && $2 == "main" && $3 ~ /^(bookworm|(old)*stable)$/ && !uri { uri = $4 }
             END { print uri }'
}

# relocate_pc FROM TO: finds its files beside itself, and asks only for what a shared link needs.
relocate_pc() {
    # shellcheck disable=SC2016 # pkg-config expands these
    sed -e 's|^prefix=.*|prefix=${pcfiledir}/../..|' -e 's|^libdir=.*|libdir=${prefix}/lib|' \
        -e 's|^includedir=.*|includedir=${prefix}/include|' \
        -e '/^\(Requires\|Libs\|Cflags\)\.private:/d' "$1" >"$2"
}

# An apt root of its own, on the machine's mirror, checked against Debian's keyring. Needs no root.
fetch_debs() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(machine_mirror)
    [ -n "$mirror" ] || die "this machine's apt sources name no mirror of Debian 12"
    [ -e "$keyring" ] || die "$keyring is missing (package debian-archive-keyring)"

    mkdir -p "$work/etc/preferences.d" "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
    : >"$work/status"
    for suite; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
    done >"$work/etc/sources.list"
    set -- -q -o Dir::Etc="$work/etc" -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o Dir::State::status="$work/status" -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o APT::Sandbox::User="$(id -un)"
    apt-get "$@" -o APT::Update::Error-Mode=any update &&
        (cd "$work/debs" && apt-get "$@" download libcurl4/bookworm-backports \
            libcurl4-openssl-dev/bookworm-backports libllhttp9.2/trixie libllhttp-dev/trixie \
            libyyjson0/trixie libyyjson-dev/trixie)
}

make_prefix() {
    say "libcurl 8.14, llhttp 9.2, yyjson 0.10: Debian 12 has none of them, unpacking into third_party/prefix"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    fetch_debs bookworm-backports trixie >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "bookworm-backports and trixie could not be read from the mirror"
    }
    for deb in "$work"/debs/*.deb; do
        dpkg -x "$deb" "$work/tree"
    done

    triplet=$(gcc -print-multiarch)
    from=$work/tree/usr
    to=$here/prefix.new
    rm -rf "$to" "$prefix"
    mkdir -p "$to/lib/pkgconfig" "$to/include" "$to/licences"
    cp -a "$from/include/." "$to/include/"
    mv "$to/include/$triplet/curl" "$to/include/curl"
    rmdir "$to/include/$triplet"
    cp -a "$from/lib/$triplet"/*.so* "$to/lib/"
    for pc in "$from/lib/$triplet"/pkgconfig/*.pc; do
        relocate_pc "$pc" "$to/lib/pkgconfig/${pc##*/}"
    done
    for package in libcurl4 libllhttp9.2 libyyjson0; do
        cp "$from/share/doc/$package/copyright" "$to/licences/$package"
    done
    mv "$to" "$prefix"
}

# --- tests: Node and the official SDKs ----------------------------------------------------------------

# npm writes its own lock file last, so it is as good as a stamp.
has_node_modules() {
    installed=$tests/node_modules/.package-lock.json
    [ -e "$installed" ] &&
        [ -z "$(find "$tests/package.json" "$tests/package-lock.json" -newer "$installed")" ]
}

install_node_modules() {
    say "Node 22 and the official SDKs: clients of the end-to-end tests, into tests/node_modules"
    log=$(mktemp)
    (cd "$tests" && npm ci --no-audit --no-fund) >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "npm could not install tests/package-lock.json; it needs its registry or a mirror" \
            "(npm config set registry …) the first time"
    }
    rm -f "$log"
    for node in "$tests"/node_modules/node-linux-*/bin/node; do
        [ -x "$node" ] || die "npm brought no Node for this processor ($(uname -m))"
    done
    touch "$tests/node_modules/.package-lock.json"
}

# --- modes ----------------------------------------------------------------------------------------

need_build() {
    need gcc "compiles the sources" has_cmd gcc
    need libc6-dev "headers of the C library" has_file /usr/include/stdio.h
    need make "drives the build" has_cmd make
    need pkg-config "tells which versions of the libraries are here" has_cmd pkg-config
    need ca-certificates "what certificates of upstreams are checked against" \
        has_file /etc/ssl/certs/ca-certificates.crt
    need libuv1-dev "event loop" has_lib libuv 1.44.2
    need libssl-dev "TLS and cryptography" has_lib openssl 3.0
    need libsqlite3-dev "the store" has_lib sqlite3 3.40.1
    need libyaml-dev "reads the configuration of systems that people come from" has_lib yaml-0.1 0.2.5
    if is_bookworm; then
        for package in libbrotli1 libgssapi-krb5-2 libidn2-0 libldap-2.5-0 libnghttp2-14 libpsl5 \
            librtmp1 libssh2-1 libzstd1 zlib1g; do
            need $package "the newer libcurl is linked with it" has_pkg $package
        done
    else
        need libcurl4-openssl-dev "HTTP client" has_lib libcurl 8.11
        need libllhttp-dev "HTTP parser" has_lib libllhttp 9.2
        need libyyjson-dev "JSON" has_lib yyjson 0.10
    fi
}

finish_build() {
    if is_bookworm; then
        has_new_libs || make_prefix
    fi
    has_new_libs || die "needs libcurl >= 8.11, llhttp >= 9.2 and yyjson >= 0.10: Debian 13 has them," \
        "elsewhere put them where pkg-config finds them"
}

need_test() {
    need check "unit tests" has_lib check 0.15
    need openssl "certificates for the tests" has_cmd openssl
    need curl "sends what its manuals say" has_cmd curl
    has_node_modules || need npm "brings Node 22 and the official SDKs" has_cmd npm
}

finish_test() {
    has_node_modules || install_node_modules
}

need_lint() {
    need clang-format-$clang "one layout of the code" has_cmd clang-format-$clang
    need clang-tidy-$clang "finds what compilers do not warn of" has_cmd clang-tidy-$clang
    need shellcheck "the same for shell scripts" has_cmd shellcheck
}

need_fuzz() {
    need clang-$clang "compiles the fuzz targets" has_cmd clang-$clang
    need libclang-rt-$clang-dev "libFuzzer and the sanitizers" has_pkg libclang-rt-$clang-dev
}

need_bench() {
    has_nginx || nginx_is_new=true
    need nginx-light "the bare reverse proxy that chatmux is measured against" has_nginx
    need util-linux "taskset: one core for each side" has_cmd taskset
}

# Debian starts it as a web server at once; nobody asked for that.
finish_bench() {
    if [ "${nginx_is_new:-}" = true ] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now nginx >/dev/null 2>&1 || :
    fi
}

need_deb() {
    need dpkg-dev "finds out what the package depends on" has_cmd dpkg-shlibdeps
}

need_fresh() {
    need debootstrap "makes the bare systems" has_cmd debootstrap
    need debian-archive-keyring "signatures of their packages" \
        has_file /usr/share/keyrings/debian-archive-keyring.gpg
}

[ $# -gt 0 ] || set -- build

# Two makes at once must not unpack over each other.
exec 9>>"$here/.lock"
flock 9

# The prefix belongs to Debian 12; after an upgrade of the machine it must not be found any more.
is_bookworm || rm -rf "$prefix"

for mode; do
    case $mode in
    build | test | lint | fuzz | bench | deb | fresh) "need_$mode" ;;
    *) die "no such mode: $mode (build, test, lint, fuzz, bench, deb, fresh)" ;;
    esac
done
install_missing
for mode; do
    case $mode in
    build | test | bench) "finish_$mode" ;;
    esac
done
