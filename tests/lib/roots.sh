# Bare Debian systems to try things in; sourced by tests/check-*.sh from the top of the tree.
#
# They are kept as archives in tests/fresh, so the next time takes less. Taken over from this machine are its mirror, its name
# servers, its proxies and its own certificate authorities, nothing else. KEEP=1 leaves the systems for a look, WORKTREE=1 takes the
# files as they lie here, not the last commit.
# shellcheck shell=bash

work=$PWD/tests/fresh
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
daemon= # process group of what runs in there
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

# enter SUITE [NAME]: a new system, of that name where several are made at once.
enter() {
    root=$work/${2:-$1}
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
}

# Into /root/chatmux of the system.
bring_sources() {
    if [ -n "${WORKTREE:-}" ]; then
        mkdir "$root/root/chatmux"
        git ls-files -co --exclude-standard | while read -r file; do [ -e "$file" ] && echo "$file"; done |
            tar -cf - -T - | tar -C "$root/root/chatmux" --no-same-owner -xf -
    else
        git clone -q --no-hardlinks . "$root/root/chatmux"
    fi
}

# inside COMMAND...: in the system, among the sources where they are there.
inside() {
    local pass=() name

    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY npm_config_registry; do
        [ -z "${!name:-}" ] || pass+=("$name=${!name}")
    done
    [ -z "${NODE_EXTRA_CA_CERTS:-}" ] || pass+=(NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt)
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb ${pass[@]+"${pass[@]}"} \
        chroot "$root" sh -c 'cd /root/chatmux 2>/dev/null || cd /root; exec "$@"' sh "$@"
}

# What every caller asks for first.
check_machine() {
    [ "$(id -u)" -eq 0 ] || die "must be root, to mount and chroot"
    [ -n "$(mirror)" ] || die "this machine's apt sources name no Debian mirror"
    mkdir -p "$work"
}
