# Sums up the lines of `llvm-cov report` for each module, and fails where a module has less than `least` percent.
# Its columns: file; regions, missed, cover; functions, missed, executed; lines, missed, cover; and so on.

$8 ~ /^[0-9]+$/ && $1 ~ /\.rs$/ {
    module = "ring"
    if ($1 ~ /wire\/src/ || $1 ~ /^(transport\/)?wire\//) module = "wire"
    if ($1 ~ /link\//) module = "local/link"
    if ($1 ~ /rendezvous/) module = "local/rendezvous"
    lines[module] += $8
    missed[module] += $9
    if ($9 > 0) printf "%-60s %5d lines, %4d not covered\n", $1, $8, $9
}

END {
    for (module in lines) {
        percent = 100 * (1 - missed[module] / lines[module])
        printf "%-18s %6d lines, %5.1f %% covered\n", module, lines[module], percent
        if (percent < least) failed = 1
        modules++
    }
    if (modules != 4) { print "modules are missing from the report"; failed = 1 }
    exit failed
}
