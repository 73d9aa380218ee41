#!/usr/bin/env bash
# Every check and every lane of tests that this machine can run; what is skipped is listed with its reason.
# With CI set, a missing Docker engine is a failure (tests/conftest.py). Needs no terminal and no input.
# A Docker daemon that this run had to start ends with it; one that stood before is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

mkdir -p .cache
began=.cache/tests-began
touch "$began"

# shellcheck disable=SC2317 # called by the trap
end_own_dockerd() {
    local pid as_root=()
    [ .cache/dockerd.pid -nt "$began" ] || return 0
    pid=$(cat .cache/dockerd.pid)
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" kill "$pid" || return 0
    local deadline=$((SECONDS + 30))
    # (one that ended and waits to be reaped counts as ended)
    while grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    rm -f .cache/dockerd.pid
}
trap end_own_dockerd EXIT

tools/setup.sh test
make --no-print-directory check

quick=(tests/unit tests/model)
status=0
echo "test: quick lanes (${quick[*]})"
.venv/bin/pytest -q -n auto --maxprocesses 4 "${quick[@]}" || status=1

# The other lanes mostly wait for the engine, so two workers serve; tests of one file stay together on one.
echo "test: lanes with engine, host and runner"
.venv/bin/pytest -q -n 2 --dist loadgroup "${quick[@]/#/--ignore=}" --ignore=tests/system tests || status=1

# What differs most from one engine to the next; `make test-newer-engine` runs all of it.
echo "test: a newer engine"
.venv/bin/python tools/newer_engine.py --short || status=1

# By itself at the end, since a machine that is emulated needs all there is. `make test-system` runs all of it.
if [ -n "${CI:-}" ]; then
    echo "test: an emulated machine with systemd and cgroup v2"
    tools/setup.sh system
    .venv/bin/pytest -q --timeout=3600 -m short tests/system || status=1
fi
exit $status
