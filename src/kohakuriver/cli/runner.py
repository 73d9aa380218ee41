"""`python -m kohakuriver.cli.runner`: a runner, as the systemd units of KohakuRiver 1.0 start it."""

from kohakuriver.cli.daemons import runner_main

if __name__ == "__main__":
    runner_main()
