"""How the emulated machine is set up: its names, units and the program that does what tests ask for."""

AGENT_UNIT_NAME = "river-test-agent.service"
AGENT = "/usr/local/lib/river-test-agent.py"
# Timers and consoles that nobody looks at; each costs seconds where instructions are emulated.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service"),
    *("systemd-pstore.service", "systemd-update-utmp.service", "kmod-static-nodes.service"),
    *("dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
)
_AGENT_UNIT = f"""\
[Unit]
Description=Does what tests ask for
After=multi-user.target

[Service]
ExecStart=/usr/bin/python3 -I -S {AGENT}
# What it has started is the tests' own affair, as what a user starts is a user's.
KillMode=process
Restart=on-failure

[Install]
WantedBy=default.target
"""
FILES = {
    "etc/hostname": "emulated\n",
    "etc/hosts": "127.0.0.1 localhost emulated\n::1 localhost\n",
    "etc/fstab": "/dev/vda / ext4 defaults,noatime 0 0\n",
    "etc/modules-load.d/river.conf": "virtio_console\noverlay\nbridge\nveth\n",
    f"etc/systemd/system/{AGENT_UNIT_NAME}": _AGENT_UNIT,
    "etc/systemd/journald.conf.d/river.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
}
