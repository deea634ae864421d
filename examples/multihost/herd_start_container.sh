#!/bin/sh
# Starts the herd in a container, with podman or docker, with the settings of herd_param.sh; removes the one before it.
# KRAKEN_IMAGE names the image, kraken-herd:dev by default.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
what=herd_start_container
# shellcheck source=herd_param.sh
. "$here/herd_param.sh"
# shellcheck source=scripts/lib.sh
. "$here/scripts/lib.sh"

[ -n "$HERD_HOST_IP" ] || die "set HERD_HOST_IP to the address of this host that agents dial"
program=$(container_program)
image=${KRAKEN_IMAGE:-kraken-herd:dev}
need_image "$program" "$image"
name=kraken-herd-multihost
"$program" rm --force "$name" >/dev/null 2>&1 || true
# The host's own network: the herd listens on the addresses that it tells to agents, without a bridge in between.
"$program" run --detach --name "$name" --network host --restart unless-stopped \
    --env HERD_HOST_IP="$HERD_HOST_IP" --env BIND_ADDRESS="$BIND_ADDRESS" \
    --volume "$here/config:/etc/kraken/config:ro" --volume kraken-herd-data:/var/cache/kraken \
    "$image" twistd --nodaemon --pidfile= kraken-herd --config=/etc/kraken/config/herd/multihost.yaml \
    --data-dir=/var/cache/kraken --blobserver-hostname="$HOSTNAME" >/dev/null
say "the container $name runs; $program logs $name shows its log"
