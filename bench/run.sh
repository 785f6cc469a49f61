#!/bin/sh
# Measures the promises of this project and writes bench/results.md; `make bench` builds what it needs and calls it.
#
# Environment: CHATMUX_BIN and BENCH_BIN (the folder of the other programs here).
#   QUICK=1       a minute and a half; figures are rough and go to the terminal only
#   LOG_ROWS=n    of the request log that is filled and read; 10 million want 5 GB below TMPDIR
#   RESULTS=FILE  writes there instead
set -eu
cd "$(dirname "$0")/.."

# Debian keeps nginx where only root's PATH looks.
PATH=$PATH:/usr/sbin
export PATH

for node in tests/node_modules/node-linux-*/bin/node; do :; done
[ -x "$node" ] || {
    echo "bench: there is no $node (third_party/deps.sh test brings it)" >&2
    exit 1
}
# A held stream takes two descriptors of a proxy.
# shellcheck disable=SC3045 # dash has -H and -n too
descriptors=$(ulimit -H -n)
if [ "$descriptors" = unlimited ] || [ "$descriptors" -gt 65536 ]; then
    descriptors=65536
fi
# shellcheck disable=SC3045
ulimit -n "$descriptors"
exec "$node" bench/run.mjs
