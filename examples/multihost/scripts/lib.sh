# shellcheck shell=sh
# What the scripts of this folder share. Sourced, with `here` set to the folder and `what` to the name in messages.

: "${here:?}" "${what:?}"
KRAKEN_VENV=${KRAKEN_VENV:-/opt/kraken}

say() { echo "$what: $*"; }
warn() { echo "$what: warning: $*" >&2; }
die() {
    echo "$what: $*" >&2
    exit 1
}

net() { "$PYTHON" "$here/scripts/net.py" "$@"; }

# -- the package -----------------------------------------------------------------------------------------------------

# Prints the twistd and the version of the package that a python has; fails when it has none.
package_of() {
    "$1" -I -c '
import importlib.util, os, sys
import krakentx
twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
if importlib.util.find_spec("twisted") is None or not os.access(twistd, os.X_OK):
    sys.exit(1)
print(twistd, krakentx.__version__)' 2>/dev/null
}

# Sets PYTHON, which has the package, and TWISTD. A wheel beside the README goes into /opt/kraken, whose programs the
# systemd units find by themselves. The last place is for this folder within a clone, after `make test`.
find_package() {
    set -- "$here"/krakentx-*.whl
    if [ -f "$1" ]; then
        for wheel in "$@"; do :; done
        install_wheel "$wheel"
    fi
    for PYTHON in ${KRAKEN_PYTHON:+"$KRAKEN_PYTHON"} "$KRAKEN_VENV/bin/python" python3 "$here/../../.venv/bin/python"; do
        if package=$(package_of "$PYTHON"); then
            PYTHON=$(command -v "$PYTHON")
            TWISTD=${package% *}
            say "using $TWISTD with krakentx ${package##* }"
            return
        fi
        [ -z "${KRAKEN_PYTHON:-}" ] || die "KRAKEN_PYTHON=$KRAKEN_PYTHON has no krakentx, or no twistd beside it"
    done
    die "krakentx is not installed here. Put its wheel (krakentx-VERSION-py3-none-any.whl) beside $here/README.md, or" \
        "set KRAKEN_PYTHON to the python of an environment that has it"
}

# The same wheel is not installed twice.
install_wheel() {
    sum=$(cksum <"$1")
    if [ "$(cat "$KRAKEN_VENV/.wheel" 2>/dev/null)" = "$sum" ]; then
        return
    fi
    say "installing $(basename "$1") into $KRAKEN_VENV"
    if [ ! -x "$KRAKEN_VENV/bin/python" ]; then
        python3 -m venv "$KRAKEN_VENV" || die "python3 cannot make virtual environments (apt-get install python3-venv)"
    fi
    # Other wheels beside it are what it needs, on a host without a package index.
    from=--prefer-binary
    for other in "$here"/*.whl; do
        case $other in */krakentx-*) ;; *) from=--no-index ;; esac
    done
    # The second call is for another build of the version that is there already; the first one brings what it needs.
    for more in '' '--force-reinstall --no-deps'; do
        # shellcheck disable=SC2086  # no option, or two
        "$KRAKEN_VENV/bin/pip" install --quiet --disable-pip-version-check "$from" --find-links "$here" $more "$1" ||
            die "the wheel could not be installed. On a host without a package index, put the wheels that it needs" \
                "beside it (on another host: pip download -d FOLDER $(basename "$1"))"
    done
    "$KRAKEN_VENV/bin/twistd" --help >/dev/null # writes down which plugins there are, which the user kraken may not
    echo "$sum" >"$KRAKEN_VENV/.wheel"
}

# -- user and folders ------------------------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }

ensure_user() {
    is_root || return 0
    id kraken >/dev/null 2>&1 && return
    if command -v useradd >/dev/null 2>&1; then
        useradd --system --user-group --no-create-home --home-dir "$KRAKEN_CACHE" --shell /usr/sbin/nologin kraken
    else
        adduser -S -D -H -h "$KRAKEN_CACHE" -s /sbin/nologin kraken # busybox
    fi
    say "made the system user kraken"
}

# Folders of the user kraken, which nobody else can write to.
ensure_folders() {
    for folder in "$@"; do
        mkdir -p "$folder" 2>/dev/null || die "cannot make $folder: run this as root, or set KRAKEN_CACHE, KRAKEN_LOGS" \
            "and KRAKEN_RUN to folders of your own"
        chmod 0750 "$folder"
        if is_root; then chown kraken: "$folder"; fi
    done
}

# Runs a command as the user kraken; as ourselves when we are not root.
as_kraken() {
    if is_root; then
        "$PYTHON" -I - "$@" <<'PROGRAM'
import os, pwd, sys
user = pwd.getpwnam("kraken")
os.initgroups(user.pw_name, user.pw_gid)
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
os.execvp(sys.argv[1], sys.argv[1:])
PROGRAM
    else
        "$@"
    fi
}

# -- addresses -------------------------------------------------------------------------------------------------------

# Prints the address that a name stands for. host.docker.internal is a name that only Docker Desktop and containers
# know: elsewhere it is taken for this host.
address_of() {
    if address=$(net resolve "$1" 2>/dev/null); then
        echo "$address"
    elif [ "$1" = host.docker.internal ] && address=$(net own 2>/dev/null); then
        warn "host.docker.internal is not known on this machine (only Docker Desktop has it); taking $address, which is" \
            "this host. Give the address itself when the herd is elsewhere"
        echo "$address"
    else
        die "$1 does not resolve here; give an address"
    fi
}

is_loopback() { case $1 in 127.* | ::1) return 0 ;; *) return 1 ;; esac; }

# An IPv6 address within a URL, or within the host:port of a YAML file, stands in brackets.
bracketed() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }

# -- systemd, or processes in the background -------------------------------------------------------------------------

with_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

# The folder of the units that came with the package.
units() { "$PYTHON" -I -c 'from krakentx.config.shipped import folder; print(folder("systemd"))'; }

# Puts config/ to /etc/kraken/config, the variables to /etc/kraken/COMPONENT.env, the unit in its place; starts it anew.
start_unit() { # COMPONENT NAME=VALUE...
    component=$1
    shift
    mkdir -p /etc/kraken
    rm -rf /etc/kraken/config
    cp -R "$here/config" /etc/kraken/config
    {
        echo "# Written by the scripts of $here; the next deployment writes it anew."
        for pair in "$@"; do echo "$pair"; done
        echo "PATH=$(dirname "$TWISTD"):/usr/local/bin:/usr/bin:/bin"
    } >"/etc/kraken/$component.env"
    # Only what was written here: other files of /etc/kraken may hold secrets.
    chmod -R u=rwX,go=rX /etc/kraken/config "/etc/kraken/$component.env"
    cp "$(units)/kraken-$component.service" /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --quiet "kraken-$component.service"
    systemctl restart "kraken-$component.service" ||
        die "the unit did not start: see journalctl -u kraken-$component, and the end of" \
            "$KRAKEN_LOGS/kraken-$component/stdout.log"
    say "kraken-$component.service is enabled and runs; systemctl status kraken-$component tells more"
}

pidfile() { echo "$KRAKEN_RUN/kraken-$1.pid"; }

# Whether a pid is that component. One that has ended and was not waited for has an empty command line.
is_component() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q "kraken-$2"; } # PID COMPONENT

# Prints the pid of a running component. A pid file may outlive its process, and its number be another's by now.
pid_of() {
    pid=$(cat "$(pidfile "$1")" 2>/dev/null) && is_component "$pid" "$1" && echo "$pid"
}

start_process() { # COMPONENT OPTION...
    component=$1
    shift
    stop_process "$component"
    rm -f "$(pidfile "$component")"
    umask 027
    as_kraken "$TWISTD" --pidfile="$(pidfile "$component")" --rundir="$KRAKEN_RUN" --umask=0027 \
        --logfile="$KRAKEN_LOGS/kraken-$component/stdout.log" "kraken-$component" "$@" ||
        explain "$component"
    say "systemd is not at work here, so twistd runs in the background; its pid is in $(pidfile "$component")"
}

explain() { # COMPONENT
    as_kraken "$TWISTD" --version >/dev/null 2>&1 ||
        die "the user kraken cannot run $TWISTD (is it below a home folder?); put a wheel beside $here/README.md instead"
    die "kraken-$1 did not start; the line above says why"
}

stop_process() { # COMPONENT
    pid=$(pid_of "$1") || return 0
    kill "$pid"
    tries=0
    while is_component "$pid" "$1"; do
        tries=$((tries + 1))
        if [ $tries -eq 150 ]; then
            warn "kraken-$1 ($pid) does not end; killing it"
            kill -9 "$pid"
        elif [ $tries -eq 200 ]; then
            die "kraken-$1 ($pid) does not end"
        fi
        sleep 0.1
    done
    say "stopped kraken-$1, which ran as $pid"
}

# -- containers ------------------------------------------------------------------------------------------------------

# Prints podman or docker, whichever works.
container_program() {
    for program in podman docker; do
        if command -v "$program" >/dev/null 2>&1 && "$program" info >/dev/null 2>&1; then
            echo "$program"
            return
        fi
    done
    die "neither podman nor docker works here: install one of them (or add yourself to the group docker), or run the" \
        "processes without containers by scripts/deploy_herd.sh and scripts/deploy_agent.sh"
}

need_image() { # PROGRAM IMAGE
    "$1" image inspect "$2" >/dev/null 2>&1 ||
        die "$1 has no image $2: build the images in a clone of the repository (make images), or set KRAKEN_IMAGE"
}
