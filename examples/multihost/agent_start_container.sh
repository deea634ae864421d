#!/bin/sh
# Starts the agent in a container, with podman or docker, with the settings of agent_param.sh; removes the one before it.
# KRAKEN_IMAGE names the image, kraken-agent:dev by default.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
what=agent_start_container
# shellcheck source=agent_param.sh
. "$here/agent_param.sh"
# shellcheck source=scripts/lib.sh
. "$here/scripts/lib.sh"

[ -n "$HERD_HOST_IP" ] || die "set HERD_HOST_IP to the address of the herd"
[ -n "$AGENT_HOST_IP" ] || die "set AGENT_HOST_IP to the address of this host that other agents dial"
program=$(container_program)
image=${KRAKEN_IMAGE:-kraken-agent:dev}
need_image "$program" "$image"
name=kraken-agent-$(uname -n)
"$program" rm --force "$name" >/dev/null 2>&1 || true
# The host's own network: the agent listens on the address that it announces, without a bridge in between.
"$program" run --detach --name "$name" --network host --restart unless-stopped \
    --env HERD_HOST_IP="$HERD_HOST_IP" --env AGENT_HOST_IP="$AGENT_HOST_IP" --env BIND_ADDRESS="$BIND_ADDRESS" \
    --volume "$here/config:/etc/kraken/config:ro" --volume kraken-agent-data:/var/cache/kraken \
    "$image" twistd --nodaemon --pidfile= kraken-agent --config=/etc/kraken/config/agent/multihost.yaml \
    --data-dir=/var/cache/kraken/agent >/dev/null
say "the container $name runs; $program logs $name shows its log"
