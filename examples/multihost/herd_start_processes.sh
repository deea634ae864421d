#!/bin/sh
# Starts the herd as a twistd process in the background, with the settings of herd_param.sh; stops the one before it.
# scripts/deploy_herd.sh calls this where systemd is not at work.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
what=${what:-herd_start_processes}
# shellcheck source=herd_param.sh
. "$here/herd_param.sh"
# shellcheck source=scripts/lib.sh
. "$here/scripts/lib.sh"

[ -n "$HERD_HOST_IP" ] || die "set HERD_HOST_IP to the address of this host that agents dial"
if [ -z "${PYTHON:-}" ] || [ -z "${TWISTD:-}" ]; then find_package; fi
ensure_user
ensure_folders "$KRAKEN_CACHE" "$KRAKEN_LOGS" "$KRAKEN_LOGS/kraken-herd" "$KRAKEN_RUN"
start_process herd --config="$here/config/herd/multihost.yaml" --data-dir="$KRAKEN_CACHE" \
    --blobserver-hostname="$HOSTNAME"
