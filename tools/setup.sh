#!/usr/bin/env bash
# Makes this checkout ready: Debian packages that are missing, .venv from the lock, a Docker engine that answers.
#   tools/setup.sh [run|check|test|system]
#     run    what `kohakuriver up` needs (default)
#     check  only Python and the checkers
#     test   what `make test` needs as well
#     system what `make test-system` needs besides
# Run again it changes nothing and takes under two seconds; a Docker engine that answers is never touched.
# What must be known afterwards: the id of a dockerd that was started here stands in .cache/dockerd.pid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SCOPE=${1:-run}
VENV=.venv
STATE=.cache
MIN_PYTHON="3.11"
APT_LISTS_MAX_AGE_DAYS=7
DOCKER_WAIT_SECONDS=60

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps daemons and iptables in sbin, which is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

# --- rights -----------------------------------------------------------------------------------------------

AS_ROOT=()
can_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    have sudo || return 1
    if sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; then
        AS_ROOT=(sudo)
        return 0
    fi
    return 1
}

# --- Debian packages --------------------------------------------------------------------------------------

PYTHON=
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if have "$candidate" && "$candidate" -c \
            'import sys; sys.exit(sys.version_info < tuple(map(int, sys.argv[1].split("."))))' "$MIN_PYTHON"; then
            PYTHON=$candidate
            return 0
        fi
    done
    return 1
}

static_busybox() {
    # The images made without a registry hold nothing but this file: one with an interpreter would not run there.
    have busybox && ! LC_ALL=C grep -q -a -m1 -E '/ld-(linux|musl)[a-z0-9_.-]*' "$(readlink -f "$(command -v busybox)")"
}

missing_packages() {
    find_python || printf '%s\n' python3 python3-venv
    if find_python && ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian's interpreters come without it; the package carries the interpreter's version.
        printf 'python%s-venv\n' "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    fi
    [ "$SCOPE" = check ] && return 0
    have ip || echo iproute2
    have ps || echo procps
    have iptables || echo iptables
    have nft || echo nftables
    have numactl || echo numactl
    have mmdebstrap || echo mmdebstrap
    static_busybox || echo busybox-static
    if [ "$ENGINE" = 1 ] && ! have dockerd; then
        printf '%s\n' docker.io ca-certificates
        have containerd || echo containerd
    elif { [ "$ENGINE" = 1 ] || [ "$SCOPE" != run ]; } && have dockerd && ! have docker; then
        echo docker-cli # a package of its own from Debian 13 on, and a part of docker.io before
    fi
    # With AppArmor in the kernel an engine starts no container without it.
    if [ "$ENGINE" = 1 ] && grep -qs '^Y' /sys/module/apparmor/parameters/enabled; then
        have apparmor_parser || echo apparmor
    fi
    case $SCOPE in test | system) ;; *) return 0 ;; esac
    have gcc || echo gcc
    [ -e /usr/include/features.h ] || echo libc6-dev
    have docker-registry || echo docker-registry
    have tmux || echo tmux
    have unshare || echo util-linux
    have shellcheck || echo shellcheck
    have ssh || echo openssh-client
    have sshd || echo openssh-server
    have rsync || echo rsync
    # What people reach through a tunnel: the servers as services of workloads, psql as their user.
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
    have dnsmasq || echo dnsmasq-base
    [ "$SCOPE" = system ] || return 0
    have qemu-system-x86_64 || echo qemu-system-x86
    have mke2fs || echo e2fsprogs
}

apt_lists_are_old() {
    [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mtime "-$APT_LISTS_MAX_AGE_DAYS" 2>/dev/null)" ]
}

apt_get() {
    "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

POLICY=/usr/sbin/policy-rc.d
hold_services() {
    # Without systemd, packages' scripts start their services through SysV scripts, in the background and with
    # no log to look at; an engine is started below instead, and a registry by the tests that want one.
    if [ -d /run/systemd/system ] || [ -e "$POLICY" ]; then
        return 0
    fi
    trap 'release_services' EXIT
    printf '#!/bin/sh\n# put here by kohakuriver tools/setup.sh while it installs packages; can be removed\nexit 101\n' |
        "${AS_ROOT[@]}" tee "$POLICY" >/dev/null
    "${AS_ROOT[@]}" chmod 755 "$POLICY"
}
release_services() {
    trap - EXIT
    if grep -q 'kohakuriver tools/setup.sh' "$POLICY" 2>/dev/null; then
        "${AS_ROOT[@]}" rm -f "$POLICY"
    fi
}

install_packages() {
    local log=$STATE/apt.log
    have apt-get || fail "these are missing and there is no apt-get to install them: $*. Install them and try again."
    can_be_root || fail "these Debian packages are missing: $*. Install them as root: apt-get install $*"
    say "installing $*"
    : >"$log"
    hold_services
    if apt_lists_are_old; then
        apt_get update >>"$log" 2>&1 || true # a dead extra source must not stop what the others can give
    fi
    if ! apt_get install -y --no-install-recommends "$@" >>"$log" 2>&1; then
        # Lists can be younger than the limit and still name files that the mirror has replaced.
        apt_get update >>"$log" 2>&1 || true
        apt_get install -y --no-install-recommends "$@" >>"$log" 2>&1 || true
    fi
    release_services
}

ensure_packages() {
    local missing
    # Some are known to be missing when others are there. One whose service could not start counts as there when
    # its programs are.
    for _ in 1 2; do
        mapfile -t missing < <(missing_packages)
        [ ${#missing[@]} = 0 ] && return 0
        install_packages "${missing[@]}"
        hash -r
    done
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} != 0 ]; then
        tail -n 20 "$STATE/apt.log" >&2
        fail "still missing after apt-get: ${missing[*]} (whole log: $STATE/apt.log)"
    fi
}

# --- Python -----------------------------------------------------------------------------------------------

python_stamp() {
    # Everything that the content of .venv follows from; the folder, because scripts in it carry its name.
    { cat pyproject.toml "requirements$1.lock"; pwd; "$VENV/bin/python" -V; } 2>&1 | sha256sum | cut -d' ' -f1
}

ensure_venv() {
    local suffix=-dev
    [ "$SCOPE" = run ] && suffix=
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        say "making $VENV with $("$PYTHON" -V)"
        rm -rf "$VENV"
        "$PYTHON" -m venv "$VENV"
    fi
    # The developer's lock holds all of the other one.
    [ "$(cat "$VENV/.installed-dev" 2>/dev/null)" = "$(python_stamp -dev)" ] && return 0
    [ "$(cat "$VENV/.installed$suffix" 2>/dev/null)" = "$(python_stamp "$suffix")" ] && return 0
    say "installing requirements$suffix.lock into $VENV"
    rm -f "$VENV"/.installed*
    "$VENV/bin/python" -m pip --disable-pip-version-check install -q --require-hashes -r "requirements$suffix.lock" ||
        fail "pip could not install requirements$suffix.lock (its message stands above)"
    # Without build isolation, because the lock brings the build backend too: nothing unlocked is fetched.
    "$VENV/bin/python" -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e . ||
        fail "pip could not install this package"
    python_stamp "$suffix" >"$VENV/.installed$suffix"
}

ensure_tunnel_client() {
    local wanted=()
    [ "$SCOPE" = system ] && wanted=(--all) # the machine there gets a wheel
    "$VENV/bin/python" tools/tunnel_client.py build "${wanted[@]}" && return
    # A cluster needs it for one thing only, and its modules come from another server than all else.
    [ "$SCOPE" = run ] || fail "tunnel-client was not built (the compiler's message stands above)"
    say "tunnel-client was not built, so ports of workloads cannot be forwarded; all else works"
}

# --- Docker -----------------------------------------------------------------------------------------------

alive() { # PID; a process that ended and waits to be reaped does not count
    grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$1/status" 2>/dev/null
}

ENGINE=1
probe_engine() {
    ENGINE=0
    "$PYTHON" tools/engine_answers.py || ENGINE=$?
}

wait_for_engine() { # [pid of the daemon]: gives up early when it has ended
    local deadline=$((SECONDS + DOCKER_WAIT_SECONDS))
    while [ "$SECONDS" -lt "$deadline" ]; do
        if [ -n "${1:-}" ] && ! alive "$1"; then
            return 1
        fi
        "${AS_ROOT[@]}" "$PYTHON" tools/engine_answers.py && return 0
        sleep 0.2
    done
    return 1
}

DOCKERD_PID=
start_dockerd() { # LOG [folder whose programs come first]
    local log=$1
    : >"$log"
    # A session of its own, so that neither the end of this terminal nor a signal to make reaches it. What is
    # ignored in the background of a script or by nohup would be ignored in all its containers, so it is reset.
    # shellcheck disable=SC2016 # expanded by the inner shell
    "${AS_ROOT[@]}" setsid env --default-signal=HUP,INT,QUIT sh -c \
        'PATH="$2${2:+:}$PATH"; echo $$ >"$3"; exec dockerd >>"$1" 2>&1 </dev/null' \
        sh "$log" "${2:-}" "$STATE/dockerd.pid" &
    disown
    local deadline=$((SECONDS + 10))
    until [ -s "$STATE/dockerd.pid" ] || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.05; done
    DOCKERD_PID=$(cat "$STATE/dockerd.pid")
    wait_for_engine "$DOCKERD_PID"
}

stop_dockerd() {
    "${AS_ROOT[@]}" kill "$DOCKERD_PID" 2>/dev/null || true
    local deadline=$((SECONDS + 20))
    while alive "$DOCKERD_PID" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    rm -f "$STATE/dockerd.pid"
}

other_iptables() { # LOG: makes a folder in which `iptables` is the variant that dockerd did not try; prints it
    local current other program folder=$PWD/$STATE/iptables
    grep -q -i -E 'iptables|ip6tables|nf_tables|netfilter' "$1" || return 1
    current=$(iptables -V 2>/dev/null)
    other=legacy
    case $current in *legacy*) other=nft ;; esac
    rm -rf "$folder"
    mkdir -p "$folder"
    for program in iptables ip6tables; do
        have "$program-$other" || return 1
        ln -s "$(command -v "$program-$other")" "$folder/$program"
    done
    printf '%s\n' "$folder"
}

clear_dead_daemon() { # removes pid files of an engine that was ended without notice
    local file pid
    for file in /run/docker.pid /run/docker/containerd/containerd.pid; do
        pid=$("${AS_ROOT[@]}" cat "$file" 2>/dev/null) || continue
        case $(alive "$pid" && cat "/proc/$pid/comm") in
        dockerd | containerd)
            wait_for_engine "$pid" && return 0 # somebody else is just starting it
            fail "process $pid is a Docker engine that does not answer: end it or repair it"
            ;;
        esac
        say "removing $file of a daemon that is gone"
        "${AS_ROOT[@]}" rm -f "$file"
    done
}

start_engine_without_init() {
    local log=$HOME/.kohakuriver/logs/dockerd.log folder
    mkdir -p "${log%/*}"
    chmod 700 "${log%/logs/*}"
    rm -f "$STATE/dockerd.pid"
    # Their numbers may belong to other processes by now, and a new daemon would refuse or wait because of them.
    clear_dead_daemon
    "${AS_ROOT[@]}" "$PYTHON" tools/engine_answers.py && return 0
    say "starting dockerd (log: $log)"
    start_dockerd "$log" && return 0
    stop_dockerd
    # Kernels differ in which of the two packet filter interfaces works; the system's choice is left as it is.
    if folder=$(other_iptables "$log"); then
        say "dockerd failed on iptables; trying the other variant"
        start_dockerd "$log" "$folder" && return 0
        stop_dockerd
    fi
    tail -n 15 "$log" >&2
    fail "dockerd does not come up; its last lines stand above, all of them in $log"
}

start_engine() {
    if [ -n "${DOCKER_HOST:-}" ]; then
        fail "DOCKER_HOST is $DOCKER_HOST and no engine answers there: start it, or unset DOCKER_HOST"
    fi
    can_be_root || fail "no Docker engine answers; start it as root: systemctl start docker (or: dockerd)"
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        "${AS_ROOT[@]}" systemctl enable --now docker.service || true
        if ! wait_for_engine; then
            "${AS_ROOT[@]}" journalctl -u docker.service -n 15 --no-pager >&2 || true
            fail "docker.service does not come up; its last lines stand above"
        fi
    else
        start_engine_without_init
    fi
}

ensure_engine() {
    if [ "$ENGINE" = 1 ]; then
        start_engine
        probe_engine
    fi
    if [ "$ENGINE" = 3 ]; then
        fail "a Docker engine is there but user $(id -un) may not use it: run 'sudo usermod -aG docker $(id -un)'," \
            "log in again, and repeat"
    fi
}

# ----------------------------------------------------------------------------------------------------------

case $SCOPE in run | check | test | system) ;; *) fail "unknown scope '$SCOPE': run, check, test or system" ;; esac
mkdir -p "$STATE"
if find_python && [ "$SCOPE" != check ]; then
    probe_engine
fi
ensure_packages
find_python || fail "no Python $MIN_PYTHON or newer; this system's python3 is $(python3 -V 2>&1)"
ensure_venv
[ "$SCOPE" = check ] || ensure_tunnel_client
[ "$SCOPE" = check ] || ensure_engine
