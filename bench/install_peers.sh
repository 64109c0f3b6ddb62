#!/bin/sh
# The routers that the bench compares with, in a virtual environment of their own, so that their pins never meet ours.
# Each may fail alone: the bench then says "not installed".
set -u
cd "$(dirname "$0")/.."
venv=.cache/peers
[ -x $venv/bin/python ] || "${PYTHON:-python3}" -m venv $venv || exit 1
for peer in sglang-router==0.3.2 smg==1.13.0; do
    $venv/bin/pip install -q --disable-pip-version-check "$peer" || echo "bench: $peer cannot be installed here" >&2
done
