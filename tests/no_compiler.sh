#!/usr/bin/env bash
# Install where no compiler works, in an environment of its own, and take a network there and back.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy, so that nothing built before is found.
mkdir "$work/source"
cp -r LICENSE README.md pyproject.toml setup.py csrc src "$work/source"
rm -rf "$work"/source/src/*.egg-info "$work"/source/src/netweight/_kernels*

"${PYTHON:-python3}" -m venv "$work/venv"
env -u NETWEIGHT_KERNELS CC=/bin/false CXX=/bin/false "$work/venv/bin/python" -m pip install -q -c constraints.txt "$work/source"
env -u NETWEIGHT_KERNELS PATH="$work/venv/bin:$PATH" python tests/there_and_back.py "$work"
