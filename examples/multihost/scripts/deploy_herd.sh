#!/bin/sh
# deploy_herd.sh HERD
#
# Starts the herd on this host; HERD is the address of this host that agents dial. A second run starts it anew with the
# settings of now, and keeps all data.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
what=deploy_herd
# shellcheck source=../herd_param.sh
. "$here/herd_param.sh"
# shellcheck source=lib.sh
. "$here/scripts/lib.sh"

[ $# -eq 1 ] || [ -n "$HERD_HOST_IP" ] || die "use: deploy_herd.sh HERD (the address of this host that agents dial)"
find_package
HERD_HOST_IP=$(address_of "${1:-$HERD_HOST_IP}")
if is_loopback "$HERD_HOST_IP"; then
    warn "$HERD_HOST_IP is this machine only: no agent on another host can reach this herd, neither its tracker nor the" \
        "pieces of its origin. Give this host's own address (perhaps $(net own 2>/dev/null || echo 10.0.1.100)) for more"
elif ! net mine "$HERD_HOST_IP"; then
    warn "no interface of this machine has the address $HERD_HOST_IP; agents will dial it all the same"
fi
if command -v redis-server >/dev/null 2>&1; then
    REDIS_SPAWN=true
    say "redis-server is here: the herd runs it on port 14001, and the tracker keeps its peers there"
else
    REDIS_SPAWN=false
    say "no redis-server here: the tracker keeps its peers in memory"
fi
ensure_user
ensure_folders "$KRAKEN_CACHE" "$KRAKEN_LOGS" "$KRAKEN_LOGS/kraken-herd" "$KRAKEN_RUN"

if with_systemd; then
    start_unit herd HERD_HOST_IP="$HERD_HOST_IP" BIND_ADDRESS="$BIND_ADDRESS" REDIS_SPAWN="$REDIS_SPAWN" \
        KRAKEN_OPTIONS="--config=/etc/kraken/config/herd/multihost.yaml --blobserver-hostname=$HOSTNAME"
else
    export PYTHON TWISTD REDIS_SPAWN what
    sh "$here/herd_start_processes.sh"
fi

case $BIND_ADDRESS in 0.0.0.0 | ::) local=127.0.0.1 ;; *) local=$(bracketed "$BIND_ADDRESS") ;; esac
net wait 60 "http://$local:14000/health" "http://$local:15002/readiness" "http://$local:15003/readiness" \
    "http://$local:15004/readiness" "http://$local:15000/v2/" ||
    die "the herd does not answer; its log is $KRAKEN_LOGS/kraken-herd/stdout.log"
herd=$(bracketed "$HERD_HOST_IP")
say "the herd is ready; data in $KRAKEN_CACHE, log in $KRAKEN_LOGS/kraken-herd/stdout.log"
if is_loopback "$HERD_HOST_IP"; then
    say "push to localhost:15000; for an agent on this machine: scripts/deploy_agent.sh localhost localhost"
else
    say "push to $herd:15000; on each other host: scripts/deploy_agent.sh $HERD_HOST_IP ADDRESS_OF_THAT_HOST"
fi
