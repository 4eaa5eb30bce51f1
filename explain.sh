#!/bin/sh
# LLD calls this with what it does not find: `undefined-symbol NAME` or `missing-lib NAME`.
case $1 in
undefined-symbol)
    case $2 in
    __rt0_entry_is_missing) echo "rt0: there is no main: write \`rt0::entry!(main);\`" >&2 ;;
    # What getrandom 0.3 and 0.4 call first, without fallbacks and with them.
    getrandom | dlsym)
        echo "rt0: \`$2\` is called (below) and not defined: a program on rt0 has no libc; if the crate getrandom" \
            "calls it, write \`rt0::getrandom_backend!(getrandom);\` and set its cfg: see the README of rt0" >&2 ;;
    *) echo "rt0: \`$2\` is called (below) and not defined: a program on rt0 has no libc" >&2 ;;
    esac ;;
missing-lib)
    echo "rt0: there is no library \`$2\` here: a program on rt0 links nothing of the system's" >&2 ;;
esac
