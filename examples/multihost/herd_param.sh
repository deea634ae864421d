# shellcheck shell=sh
# Settings of a herd; the scripts read this file. What the environment sets already stays.

# Address of this host that agents dial. deploy_herd.sh takes it from its first argument.
HERD_HOST_IP=${HERD_HOST_IP:-}
# How the origin is named in a ring of several.
# shellcheck disable=SC3028  # bash sets it by itself, for other shells it is a variable like others
HOSTNAME=${HOSTNAME:-$(uname -n)}
# Address to listen on; 0.0.0.0 is all of them.
BIND_ADDRESS=${BIND_ADDRESS:-0.0.0.0}
# Where data, logs and pid files go. Under systemd the units have these very places.
KRAKEN_CACHE=${KRAKEN_CACHE:-/var/cache/kraken}
KRAKEN_LOGS=${KRAKEN_LOGS:-/var/log/kraken}
KRAKEN_RUN=${KRAKEN_RUN:-/var/run/kraken}

export HERD_HOST_IP HOSTNAME BIND_ADDRESS KRAKEN_CACHE KRAKEN_LOGS KRAKEN_RUN
