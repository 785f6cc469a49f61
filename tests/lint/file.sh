#!/bin/sh
# Lints one C file or header: tests/lint/file.sh FILE STAMP COMPILER-FLAG...
# Makes STAMP when all is well, and none when not; lint.sh counts them. Environment: CC.
set -u

file=$1 stamp=$2
shift 2
rm -f "$stamp"
ok=true

case $file in
*.h) # compiles alone: as the only thing that a file includes (unless it is a list of X(...) lines)
    grep -q '^X(' "$file" || printf '#include "%s"\n' "$file" |
        "$CC" "$@" -I. -MMD -MP -MT "$stamp" -MF "${stamp%.ok}.d" -x c -c - -o /dev/null || ok=false
    ;;
*)
    "$CC" "$@" -MMD -MP -MT "$stamp" -MF "${stamp%.ok}.d" -c "$file" -o /dev/null || ok=false
    clang-tidy-19 --quiet "$file" -- "$@" 2>/dev/null || ok=false
    ;;
esac
clang-format-19 --dry-run -Werror "$file" 2>/dev/null || {
    echo "$file: its layout differs from .clang-format (make format)"
    ok=false
}

$ok && echo ok >"$stamp"
exit 0
