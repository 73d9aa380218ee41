#!/usr/bin/env bash
# Writes requirements.lock (what runs) and requirements-dev.lock (that and the checkers and test tools) from
# pyproject.toml: exact versions with the hashes of all their files, for every Python and platform we permit.
# Both come from one resolution, so that no version differs between them.
#   tools/lock.sh [--keep]    --keep: change only what pyproject.toml forces, keep the other versions
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RESOLVER=uv==0.13.9
TOOL=.cache/lock-venv
if ! "$TOOL/bin/python" -m pip show -q "${RESOLVER%%==*}" 2>/dev/null; then
    python3 -m venv "$TOOL"
fi
"$TOOL/bin/python" -m pip --disable-pip-version-check install -q "$RESOLVER"

upgrade=(--upgrade)
[ "${1:-}" = --keep ] && upgrade=()
compile() {
    "$TOOL/bin/uv" pip compile -q --no-config --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links --no-annotate "$@" pyproject.toml
}
compile "${upgrade[@]}" --group build --group dev -o requirements-dev.lock
compile --group build -c requirements-dev.lock -o requirements.lock
