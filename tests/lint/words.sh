#!/bin/sh
# Words that must not slip in: tests/lint/words.sh FILE...   Prints "FILE:LINE: text"; exit 1 when there is one.
set -u

bad=0

# refuse PATTERN WHY FILE...
refuse() {
    pattern=$1 why=$2
    shift 2
    [ $# -gt 0 ] || return 0
    grep -nHE "$pattern" "$@" || return 0
    echo "  ^ $why"
    bad=1
}

own=$0
c_files=$(for file; do case $file in *.[ch]) echo "$file" ;; esac; done)
lock_files=$(for file; do case $file in */package-lock.json) echo "$file" ;; esac; done)
all=$(for file; do [ "$file" = "${own#./}" ] || echo "$file"; done)

# shellcheck disable=SC2086 # lists of names without spaces
{
    refuse '\<(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|gets)[ ]?\(' "use the bounded form" $c_files
    refuse '"resolved":' "a lock file names no host (tests/.npmrc)" $lock_files
    refuse '\<(TODO|FIXME|XXX)\>' "do it, or open an issue" $all
    refuse 'registry\.[a-z]+\.(org|com)' "no package registry is named here" $all
    refuse '(^|[^A-Za-z0-9_.])/(home|Users|work)/' "a path of somebody's machine" $all
    refuse '[ 	]+$' "blanks at the end of a line" $c_files
}
exit $bad
