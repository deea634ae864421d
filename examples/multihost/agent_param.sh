# shellcheck shell=sh
# Settings of an agent; the scripts read this file. What the environment sets already stays.

# Address of the herd. deploy_agent.sh takes it from its first argument.
HERD_HOST_IP=${HERD_HOST_IP:-}
# Address of this host that other agents dial. deploy_agent.sh takes it from its second argument.
AGENT_HOST_IP=${AGENT_HOST_IP:-}
# Address to listen on; 0.0.0.0 is all of them.
BIND_ADDRESS=${BIND_ADDRESS:-0.0.0.0}
# Where data, logs and pid files go. Under systemd the unit has these very places.
KRAKEN_CACHE=${KRAKEN_CACHE:-/var/cache/kraken}
KRAKEN_LOGS=${KRAKEN_LOGS:-/var/log/kraken}
KRAKEN_RUN=${KRAKEN_RUN:-/var/run/kraken}

export HERD_HOST_IP AGENT_HOST_IP BIND_ADDRESS KRAKEN_CACHE KRAKEN_LOGS KRAKEN_RUN
