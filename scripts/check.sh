#!/usr/bin/env bash
# Lint, format and types over the package, the tests and the scripts: what the continuous integration checks.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
