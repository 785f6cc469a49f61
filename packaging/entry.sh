#!/bin/sh
# The first process of the container: entry.sh [COMMAND] [OPTIONS], as for chatmux itself.
#
# Folders that Docker makes for a mount belong to root, and other gateways' images left theirs to root or to users of their own. So the
# container starts as root, makes the state folder the gateway's, and goes on as user 10001. What else lies there keeps its owner. A container that
# starts as another user (user: in a compose file, runAsUser) changes nothing, and says what to do when it cannot write.
set -eu

id=10001

say() { echo "chatmux: $*" >&2; }

# Where this configuration keeps its state; nothing when it has problems, which chatmux will tell.
state_dir() {
    case ${1:-} in
    '' | -*) ;;
    *) shift ;; # the command; its options follow
    esac
    chatmux print-config "$@" 2>/dev/null | sed -n 's/^state_dir = //p'
}

# The nearest folder above that exists.
existing() {
    path=$1
    while [ ! -e "$path" ]; do path=$(dirname "$path"); done
    echo "$path"
}

# Files of ours that root or another user has made; never what other programs keep in the same folder.
take_over() {
    # shellcheck disable=SC2174 # the folders above are not ours
    mkdir -p -m 700 "$1"
    [ "$(stat -c %u "$1")" = $id ] || chown $id:$id "$1"
    find "$1" -maxdepth 1 -type f ! -user $id \( -name 'chatmux.db*' -o -name 'master.key*' \
        -o -name 'requests-*.db*' -o -name 'usage-*.db*' \) -exec chown $id:$id {} +
}

as_gateway() { setpriv --reuid $id --regid $id --clear-groups "$@"; }

case ${1:-serve} in
serve | -* | import) dir=$(state_dir "$@" || true) ;;
*) dir= ;;
esac
if [ "$(id -u)" -ne 0 ]; then
    if [ -n "$dir" ] && [ ! -w "$(existing "$dir")" ]; then
        say "user $(id -u) cannot write $dir: on the host give the mounted folder to it (chown $(id -u) FOLDER)," \
            "or let the container start as root, which does that itself"
    fi
    exec chatmux "$@"
fi
if ! as_gateway true 2>/dev/null; then
    say "this container is root and may not become user $id (its capabilities are dropped): start it as that user (user: \"$id:$id\"," \
        "--user $id:$id), and give it the mounted folder (chown $id FOLDER on the host)"
    exit 1
fi
if [ -n "$dir" ]; then
    take_over "$dir" 2>/dev/null || true
    # shellcheck disable=SC2016 # the inner shell expands it
    if ! as_gateway sh -c 'cd "$1" && [ -w . ]' sh "$dir" 2>/dev/null; then
        say "user $id cannot write $dir, and root cannot change that here: on the host give the mounted folder to it (chown $id FOLDER)"
    fi
fi
exec setpriv --reuid $id --regid $id --clear-groups --inh-caps=-all chatmux "$@"
