#!/bin/sh
# Has the VPS's sshd run with the configuration in /etc/ssh/kohakuriver; free where it does already.
# Run by the runner as root inside a VPS, with the busybox that is mounted there: the image may hold no shell.
# Exit status: 0 it was started, 10 no sshd and no package manager, 11 it could not be installed, 12 it refused.
# shellcheck disable=SC2317 # functions are called by name

B=/.kohakuriver/busybox
FILES=/etc/ssh/kohakuriver
RUN=/run/kohakuriver
PID_FILE=/run/kohakuriver-sshd.pid
POLICY=/usr/sbin/policy-rc.d
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# An earlier runner may have left one of these at work. Waiting for lower numbers alone, no two wait for each other.
wait_for_earlier() {
    for folder in /proc/[0-9]*; do
        other=${folder#/proc/}
        [ "$other" -lt $$ ] || continue
        while $B grep -q kohakuriver/ssh_setup.sh "$folder/cmdline" 2>/dev/null; do $B sleep 0.2; done
    done
}

find_sshd() { # prints its absolute path, which it needs to be started with
    for folder in $(echo "$PATH" | $B tr : ' '); do
        if [ -f "$folder/sshd" ] && [ -x "$folder/sshd" ]; then
            echo "$folder/sshd"
            return 0
        fi
    done
    return 1
}

has() { command -v "$1" >/dev/null 2>&1; }

apt_install() {
    # Without an init, a package's scripts would start a daemon of their own.
    if [ -d /usr/sbin ] && [ ! -e $POLICY ]; then
        printf '#!/bin/sh\n# put here by kohakuriver while it installs sshd\nexit 101\n' >$POLICY
        $B chmod 755 $POLICY
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update && apt-get -qq install -y --no-install-recommends openssh-server
    status=$?
    release_daemons
    return $status
}

release_daemons() {
    if $B grep -q 'by kohakuriver' $POLICY 2>/dev/null; then
        $B rm -f $POLICY
    fi
}

install_sshd() {
    if has apk; then
        apk add --no-cache openssh-server
    elif has apt-get; then
        apt_install
    elif has dnf; then
        dnf install -y openssh-server
    elif has microdnf; then
        microdnf install -y openssh-server
    elif has yum; then
        yum install -y openssh-server
    elif has zypper; then
        zypper --non-interactive install --no-recommends openssh-server
    elif has pacman; then
        pacman -Sy --noconfirm openssh
    else
        exit 10
    fi
}

running() { # the VPS's own sshd, and not another process with the number that it once had
    pid=$($B cat $PID_FILE 2>/dev/null) || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    # Written so that this very program does not match, whose number it may be as well.
    $B grep -q '[k]ohakuriver/sshd_config' "/proc/$pid/cmdline" 2>/dev/null
}

prepare_accounts() {
    # Without PAM, sshd takes a password that begins with ! for an account that is locked.
    for file in /etc/passwd /etc/shadow; do
        [ -f $file ] || continue
        if $B grep -q '^ *Match Address' $FILES/sshd_config; then
            $B sed -i 's/^root:[^:]*:/root::/' $file
        else
            $B sed -i 's/^root:![^:]*:/root:*:/' $file
        fi
    done
    if ! $B grep -q '^sshd:' /etc/passwd 2>/dev/null; then
        echo 'sshd:x:65533:65534:sshd:/run/sshd:/bin/false' >>/etc/passwd
    fi
    # Where it shuts itself in before somebody is let in; which of them is compiled in.
    for folder in /run/sshd /var/empty /var/run/sshd; do
        [ -d $folder ] || $B mkdir -p $folder
    done
    $B chmod 755 /run/sshd
}

start() { # SSHD
    config=$FILES/sshd_config
    if ! "$1" -t -f $config 2>/dev/null; then
        # Before 7.8 there is no SetEnv.
        config=$RUN/sshd_config
        $B grep -v '^SetEnv ' $FILES/sshd_config >$config
    fi
    set -- "$1" -f $config -E $RUN/sshd.log
    # All connections come from the same address, which is not to pay for one that goes wrong (since 9.8).
    if "$@" -t -o PerSourcePenalties=no 2>/dev/null; then
        set -- "$@" -o PerSourcePenalties=no
    fi
    "$@" -t && "$@"
}

trap 'exit 11' HUP TERM
trap release_daemons EXIT
wait_for_earlier
$B mkdir -p $RUN && $B chmod 700 $RUN || exit 12
if running; then
    $B cmp -s $FILES/version $RUN/version && exit 0
    $B kill "$pid"
    while running; do $B sleep 0.05; done
fi
if ! find_sshd >/dev/null; then
    install_sshd </dev/null || exit 11
fi
sshd=$(find_sshd) || exit 11
prepare_accounts || exit 12
start "$sshd" || exit 12
$B cp $FILES/version $RUN/version
