#!/bin/sh
# undeploy.sh [--purge]
#
# Stops whatever the other scripts started on this host: units, processes in the background, containers. Images, tags
# and logs stay; with --purge they go too, and with them the settings, /opt/kraken and the user kraken.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
what=undeploy
# shellcheck source=../herd_param.sh
. "$here/herd_param.sh"
# shellcheck source=lib.sh
. "$here/scripts/lib.sh"

case ${1:-} in '' | --purge) ;; *) die "use: undeploy.sh [--purge]" ;; esac

for component in agent herd; do
    unit=kraken-$component.service
    if with_systemd && [ -e "/etc/systemd/system/$unit" ]; then
        systemctl disable --quiet --now "$unit"
        rm -f "/etc/systemd/system/$unit" "/etc/kraken/$component.env"
        systemctl daemon-reload
        say "stopped and removed $unit"
    fi
    stop_process "$component"
    rm -f "$(pidfile "$component")"
done

for program in podman docker; do
    command -v "$program" >/dev/null 2>&1 || continue
    names=$("$program" ps --all --filter 'name=^kraken-' --format '{{.Names}}' 2>/dev/null) || continue
    for name in $names; do
        "$program" rm --force "$name" >/dev/null
        say "removed the container $name of $program"
    done
done

if [ "${1:-}" = --purge ]; then
    for folder in "$KRAKEN_CACHE" "$KRAKEN_LOGS" "$KRAKEN_RUN" /etc/kraken "$KRAKEN_VENV"; do
        if [ -e "$folder" ]; then
            rm -rf "$folder"
            say "removed $folder"
        fi
    done
    if is_root && id kraken >/dev/null 2>&1; then
        if command -v userdel >/dev/null 2>&1; then userdel kraken; else deluser kraken; fi
        say "removed the user kraken"
    fi
else
    say "data stays in $KRAKEN_CACHE, logs in $KRAKEN_LOGS; undeploy.sh --purge removes them"
fi
