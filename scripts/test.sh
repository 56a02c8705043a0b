#!/usr/bin/env bash
# Runs all tests: unit tests, then the tests of the whole program. Arguments go to cargo test.
#
# One profile, release, for running and testing, so that the large dependencies are compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --release "$@"
