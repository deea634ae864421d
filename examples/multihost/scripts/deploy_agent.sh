#!/bin/sh
# deploy_agent.sh HERD AGENT
#
# Starts the agent of this host. HERD is the address of the herd, AGENT that of this host as other agents dial it. A
# second run starts it anew with the settings of now, and keeps all data.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
what=deploy_agent
# shellcheck source=../agent_param.sh
. "$here/agent_param.sh"
# shellcheck source=lib.sh
. "$here/scripts/lib.sh"

HERD_HOST_IP=${1:-$HERD_HOST_IP}
AGENT_HOST_IP=${2:-$AGENT_HOST_IP}
if [ $# -gt 2 ] || [ -z "$HERD_HOST_IP" ] || [ -z "$AGENT_HOST_IP" ]; then
    die "use: deploy_agent.sh HERD AGENT (the address of the herd, and that of this host as other agents dial it)"
fi
find_package
herd_address=$(address_of "$HERD_HOST_IP")
AGENT_HOST_IP=$(address_of "$AGENT_HOST_IP")
HERD_HOST_IP=$(bracketed "$herd_address")
if is_loopback "$AGENT_HOST_IP" && ! net mine "$herd_address"; then
    warn "$AGENT_HOST_IP is this machine only: this agent can pull, but no other one can pull from it. Give this" \
        "host's own address (perhaps $(net own 2>/dev/null || echo 10.0.1.101))"
elif ! net mine "$AGENT_HOST_IP"; then
    warn "no interface of this machine has the address $AGENT_HOST_IP; other agents will dial it all the same"
fi
ensure_user
ensure_folders "$KRAKEN_CACHE" "$KRAKEN_CACHE/agent" "$KRAKEN_LOGS" "$KRAKEN_LOGS/kraken-agent" "$KRAKEN_RUN"

if with_systemd; then
    start_unit agent HERD_HOST_IP="$HERD_HOST_IP" AGENT_HOST_IP="$AGENT_HOST_IP" BIND_ADDRESS="$BIND_ADDRESS" \
        KRAKEN_OPTIONS=--config=/etc/kraken/config/agent/multihost.yaml
else
    start_process agent --config="$here/config/agent/multihost.yaml" --data-dir="$KRAKEN_CACHE/agent"
fi

case $BIND_ADDRESS in 0.0.0.0 | ::) local=127.0.0.1 ;; *) local=$(bracketed "$BIND_ADDRESS") ;; esac
net wait 60 "http://$local:16002/health" "http://$local:16000/v2/" ||
    die "the agent does not answer; its log is $KRAKEN_LOGS/kraken-agent/stdout.log"
net wait 3 "http://$HERD_HOST_IP:15003/health" "http://$HERD_HOST_IP:15004/health" ||
    warn "the herd does not answer from here: is it deployed, and are its ports 15000 to 15005 open to this host?" \
        "The agent keeps trying"
say "the agent is ready; data in $KRAKEN_CACHE/agent, log in $KRAKEN_LOGS/kraken-agent/stdout.log"
say "pull from $(bracketed "$AGENT_HOST_IP"):16000, for instance: test/kraken-pull.sh IMAGE $(bracketed "$AGENT_HOST_IP"):16000"
