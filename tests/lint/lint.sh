#!/bin/sh
# What concerns more than one C file, and the totals of `make lint`: tests/lint/lint.sh STAMP...
# STAMP is made by file.sh for each file that is in order.
set -u
cd "$(dirname "$0")/../.." || exit 1

passed=0
failed=0

# check NAME COMMAND...
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        echo "lint: $name failed"
        failed=$((failed + 1))
    fi
}

# Files of the project, new ones too; without git all that is not made or fetched.
project_files() {
    git ls-files -co --exclude-standard 2>/dev/null ||
        find . -type f ! -path './.git/*' ! -path './build/*' ! -path './data/*' ! -path './tests/fresh/*' \
            ! -path './third_party/prefix/*' ! -path '*/node_modules/*' | sed 's|^\./||'
}

existing() {
    while read -r file; do
        [ -f "$file" ] && echo "$file"
    done
}

for stamp; do
    if [ -e "$stamp" ]; then
        passed=$((passed + 1))
    else
        file=${stamp#*/lint/}
        echo "lint: ${file%.ok} failed"
        failed=$((failed + 1))
    fi
done

files=$(project_files | existing)
# shellcheck disable=SC2086,SC2046 # lists of names without spaces
{
    check layers awk -f tests/lint/layers.awk src/LAYERS $(find src include -name '*.[ch]')
    check words tests/lint/words.sh $files
    for script in $(grep -lE '^#!/bin/(ba)?sh' $files | tr '\n' ' '); do
        check "$script" shellcheck "$script"
    done
}

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
