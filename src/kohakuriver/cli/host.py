"""`python -m kohakuriver.cli.host`: the host, as the systemd units of KohakuRiver 1.0 start it."""

from kohakuriver.cli.daemons import host_main

if __name__ == "__main__":
    host_main()
