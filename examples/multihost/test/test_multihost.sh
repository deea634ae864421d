#!/bin/sh
# test_multihost.sh HERD AGENT
#
# Pushes a small new image to the herd and pulls it through the agent, both given by address. Runs on any host that
# reaches them; on the agent's own host it reads the agent's log, elsewhere the agent's metrics.
# Exit code 0 when all three checks pass.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
what=test_multihost
# shellcheck source=../agent_param.sh
. "$here/agent_param.sh"
# shellcheck source=../scripts/lib.sh
. "$here/scripts/lib.sh"

[ $# -eq 2 ] || die "use: test_multihost.sh HERD AGENT"
if [ -x "$KRAKEN_VENV/bin/python" ]; then PYTHON=$KRAKEN_VENV/bin/python; else PYTHON=${KRAKEN_PYTHON:-python3}; fi
image() { "$PYTHON" "$here/test/image.py" "$@"; }

herd_address=$(address_of "$1")
agent_address=$(address_of "$2")
herd=$(bracketed "$herd_address")
agent=$(bracketed "$agent_address")
name=multihost/test-$$:latest
failed=0
pass() { echo "✓ $*"; }
fail() {
    echo "✗ $*"
    failed=1
}

# Prints how many bytes of the given blobs the agent had from fallback, or nothing when its log does not tell.
bytes_from_fallback() {
    total=0
    for digest in "$@"; do
        line=$(grep -F "Torrent complete: $digest " "$log" | tail -n 1)
        bytes=$(echo "$line" | sed -n 's/.*from fallback (\([0-9]*\) bytes).*/\1/p')
        [ -n "$bytes" ] || return 0
        total=$((total + bytes))
    done
    echo "$total"
}

# The log of the agent when that runs on this host as a process or unit.
log=$KRAKEN_LOGS/kraken-agent/stdout.log
if ! net mine "$agent_address" || [ ! -r "$log" ]; then log=''; fi

if digests=$(image push "$herd:15000" "$name"); then
    pass "Push to herd succeeds"
else
    fail "Push to herd fails: is it deployed, and is its port 15000 open to this host?"
    exit 1
fi
manifest=${digests%% *}

before=0
[ -n "$log" ] || before=$(image fallback "$agent:16002") || before=unknown
pulled=yes
image pull "$agent:16000" "$name" "$manifest" || pulled=no
fallback=''
if [ -n "$log" ]; then
    tries=0
    # shellcheck disable=SC2086  # digests are words
    while fallback=$(bytes_from_fallback $digests) && [ -z "$fallback" ] && [ $tries -lt 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    source="its log, $log"
elif [ "$before" != unknown ] && after=$(image fallback "$agent:16002"); then
    fallback=$((after - before))
    source="its metrics; its log is not on this host"
fi
if [ $pulled = no ]; then
    fail "Agent does not pull: the line above says what it answered"
elif [ -z "$fallback" ]; then
    fail "Agent pulls, but neither its log nor its metrics tell where the bytes came from"
elif [ "$fallback" -ne 0 ]; then
    fail "Agent pulls, but $fallback bytes came from fallback and not from peers ($source): is the herd's port 15001 open?"
else
    pass "Agent pulls via P2P (no timeout)"
fi

if [ $pulled = yes ]; then
    pass "Image verification passes"
else
    fail "Image verification fails"
fi
exit $failed
