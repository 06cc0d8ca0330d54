#!/bin/sh
# Resolve every *.in into the lock beside it, for Python 3.11 and newer, with hashes.
set -eu
export UV_SYSTEM_CERTS=true # a company's proxy may sign for the package index
lock() {
  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@"
}
lock requirements.in -o requirements.txt
lock --no-deps roles/python/files/uv.in -o roles/python/files/uv.txt
for app in app_src/*/; do
  lock "$app/requirements.in" -o "$app/requirements.txt"
done
