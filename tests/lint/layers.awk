# Checks every #include against src/LAYERS: awk -f layers.awk src/LAYERS FILE...
# Prints "FILE:LINE: what is wrong"; exit 1 when there was anything.

# The layer of a file: the folder below src/ or include/chatmux/, "app" for what lies directly in there.
function layer_of(path,    parts, n)
{
    sub(/^(src|include\/chatmux)\//, "", path)
    n = split(path, parts, "/")
    return n > 1 ? parts[1] : "app"
}

# The rule for a system header, "" when anyone may include it.
function guarded(header,    prefix)
{
    for (prefix in guards)
        if (index(header, prefix) == 1)
            return prefix
    return ""
}

function complain(text)
{
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}

FNR == 1 { nth_file++ }

nth_file == 1 { # who: whom whom <header> …
    sub(/#.*/, "")
    if (!match($0, /:/))
        next
    whoms = split(substr($0, RSTART + 1), whom, " ")
    whos = split(substr($0, 1, RSTART - 1), who, /[ ,]+/)
    for (i = 1; i <= whos; i++) {
        known[who[i]] = 1
        for (j = 1; j <= whoms; j++) {
            allowed[who[i], whom[j]] = 1
            if (whom[j] ~ /^</)
                guards[substr(whom[j], 2, length(whom[j]) - (whom[j] ~ />$/ ? 2 : 1))] = whom[j]
        }
    }
    next
}

FNR == 1 {
    own = layer_of(FILENAME)
    if (!(own in known))
        complain("layer " own " is not in src/LAYERS")
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    target = quoted[2]
    if (target ~ /^chatmux\//) {
        sub(/^chatmux\//, "", target)
        other = layer_of(target)
        if (other != own && !((own, other) in allowed) && !((FILENAME, other) in allowed))
            complain(own " must not include " other " (\"" quoted[2] "\")")
    } else if (target ~ /\//) {
        complain("\"" target "\": include \"chatmux/<layer>/<module>.h\", or a private header of the own folder")
    }
}

/^[ \t]*#[ \t]*include[ \t]*</ {
    split($0, angled, /[<>]/)
    rule = guarded(angled[2])
    if (rule != "" && !((own, guards[rule]) in allowed) && !((FILENAME, guards[rule]) in allowed))
        complain(own " must not include <" angled[2] ">")
}

END { exit bad }
