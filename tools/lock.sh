#!/bin/sh
# Resolve every *.in into the lock next to it, for Python 3.11 and newer, with hashes.
# From wheels only: to read an sdist's metadata would run its code here.
set -eu
export UV_SYSTEM_CERTS=true # a company's proxy may sign for the package index
lock() {
  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --only-binary :all: \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@"
}
lock --no-binary sslyze requirements.in -o requirements.txt # it has no wheel; the tests need it
for app in app_src/*/; do
  lock "$app/requirements.in" -o "$app/requirements.txt"
done
