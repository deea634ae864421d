#!/bin/sh
# kraken-pull.sh IMAGE [AGENT]
#
# Pulls IMAGE through an agent (host:port, default localhost:16000), with whichever of docker, podman, nerdctl, ctr or
# skopeo is here. When the agent cannot give it, pulls from the herd: HERD_HOST, default localhost:15000.
#
#   --name IMAGE       only print the name under which a registry is asked for IMAGE
#   KRAKEN_PULL_WITH   the program to use
#   KRAKEN_PULL_DIR    where skopeo puts the image, as an OCI layout (it has no store of its own); default: here
#   KRAKEN_PULL_LIMIT  seconds that one try may take; default 900
#
# Exit code: 0 pulled, 1 not pulled, 2 wrong use.
set -eu

say() { echo "kraken-pull: $*"; }
wrong() {
    echo "kraken-pull: $*" >&2
    exit 2
}
matches() { printf '%s\n' "$1" | grep -Eqx -e "$2"; }

# Sets host, repository, tag and digest of what a person wrote. The first part is a host when it has a dot or a colon or
# is localhost; without one docker.io is meant, whose names of one part belong to library/.
parse() {
    name=$1 host='' tag='' digest=''
    case $name in
        *@*) digest=${name#*@} name=${name%%@*} ;;
    esac
    first=${name%%/*}
    case $name in
        */*)
            case $first in
                *.* | *:* | localhost) host=$first name=${name#*/} ;;
            esac
            ;;
    esac
    case $name in
        *:*)
            tag=${name#*:} name=${name%%:*}
            [ -n "$tag" ] || wrong "there is no tag after the colon"
            ;;
    esac
    case $host in
        '' | docker.io | index.docker.io)
            host=docker.io
            case $name in
                */*) ;;
                *) name=library/$name ;;
            esac
            ;;
    esac
    repository=$name
    part='[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*'
    matches "$repository" "$part(/$part)*" ||
        wrong "'$repository' is no name: write lower-case letters and digits, joined by single . _ - or /"
    whole=$host/$repository
    [ ${#whole} -le 255 ] || wrong "host and name have more than 255 characters together"
    case $1 in
        *@*) matches "$digest" 'sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}' || wrong "'$digest' is no digest" ;;
        *) tag=${tag:-latest} ;;
    esac
    [ -z "$tag" ] || matches "$tag" '[A-Za-z0-9_][A-Za-z0-9._-]{0,127}' || wrong "'$tag' is no tag"
}

# What follows the host: a digest wins over a tag.
asked_for() { if [ -n "$digest" ]; then echo "$repository@$digest"; else echo "$repository:$tag"; fi; }

works() {
    case $1 in
        docker | nerdctl) "$1" version >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

choose() {
    case ${KRAKEN_PULL_WITH:-} in
        '') ;;
        docker | podman | nerdctl | ctr | skopeo)
            echo "$KRAKEN_PULL_WITH"
            return
            ;;
        *) wrong "KRAKEN_PULL_WITH=$KRAKEN_PULL_WITH: docker, podman, nerdctl, ctr and skopeo are known" ;;
    esac
    for each in docker podman nerdctl ctr skopeo; do
        if works "$each"; then
            echo "$each"
            return
        fi
    done
}

pull_with() { # PROGRAM SOURCE
    case $1 in
        docker) limited docker pull "$2" ;;
        podman) limited podman pull --tls-verify=false "$2" ;;
        nerdctl) limited nerdctl pull --insecure-registry "$2" ;;
        ctr) limited ctr images pull --plain-http "$2" ;;
        skopeo) limited skopeo copy --src-tls-verify=false "docker://$2" "oci:$(layout):${tag:-latest}" ;;
    esac
}

limited() {
    if command -v timeout >/dev/null 2>&1; then timeout "${KRAKEN_PULL_LIMIT:-900}" "$@"; else "$@"; fi
}

layout() { echo "${KRAKEN_PULL_DIR:-.}/$(echo "$repository" | tr / _)"; }

# The image gets the name that was asked for, so that `docker run` and the like find it.
name_it() { # PROGRAM SOURCE
    if [ "$1" = skopeo ]; then
        say "it is in $(layout)"
    elif [ -n "$tag" ] && [ "$2" != "$host/$repository:$tag" ]; then
        case $1 in
            ctr) ctr images tag --force "$2" "$host/$repository:$tag" >/dev/null ;;
            *) "$1" tag "$2" "$host/$repository:$tag" ;;
        esac
    fi
}

# Pulls, shows what the program says, and keeps it for a closer look. A pipe hides the exit code, hence the file.
try() { # PROGRAM SOURCE
    { pull_with "$1" "$2" 2>&1 && code=0 || code=$?; echo "$code" >"$scratch/code"; } | tee "$scratch/said"
    read -r code <"$scratch/code"
    if [ "$code" -ne 0 ] && grep -q 'server gave HTTP response to HTTPS client' "$scratch/said"; then
        insecure=yes
    fi
    return "$code"
}

advise() {
    cat >&2 <<LINES
kraken-pull: $with speaks HTTPS to this registry, and it is plain HTTP. These lines of /etc/docker/daemon.json allow it
(then \`systemctl reload docker\`, or send dockerd a HUP):
{
  "registry-mirrors": ["http://$agent"],
  "insecure-registries": ["$agent", "$herd"]
}
LINES
}

case ${1:-} in
    --name)
        [ $# -eq 2 ] || wrong "use: kraken-pull.sh --name IMAGE"
        parse "$2"
        asked_for
        exit 0
        ;;
    '' | -*)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
[ $# -le 2 ] || wrong "use: kraken-pull.sh IMAGE [AGENT]"

parse "$1"
agent=${2:-localhost:16000}
case $agent in *:*) ;; *) agent=$agent:16000 ;; esac
herd=${HERD_HOST:-localhost:15000}
case $herd in *:*) ;; *) herd=$herd:15000 ;; esac
with=$(choose)
[ -n "$with" ] || wrong "none of docker, podman, nerdctl, ctr and skopeo is here and works"
insecure=no
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

image=$(asked_for)
say "$image from the agent $agent, with $with"
if try "$with" "$agent/$image"; then
    name_it "$with" "$agent/$image"
    exit 0
fi
[ "$insecure" = no ] || advise
echo "Agent pull failed, falling back to herd" >&2
say "$image from the herd $herd, with $with"
if try "$with" "$herd/$image"; then
    name_it "$with" "$herd/$image"
    exit 0
fi
echo "kraken-pull: neither the agent nor the herd gave $image" >&2
exit 1
