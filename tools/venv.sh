#!/bin/sh
# Make .venv, the environment of the control node, from the lock.
set -eu
# Not the one of .venv, should that be active: it is about to go.
python=$(python3 -c "import sys; print(sys._base_executable)") || { echo "please install python3 (3.11 or newer)" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' || {
  echo "please install Python 3.11 or newer: $python is $("$python" -V)" >&2; exit 1; }
# Debian ships venv apart from the interpreter.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -q >&2 && $sudo apt-get install -qy python3-venv >&2 || {
    echo "please install python3-venv" >&2; exit 1; }
fi
echo "making .venv (Ansible, Molecule, linters)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes \
  --only-binary=:all: --no-binary=sslyze -r requirements.txt
# The checkout is the collection paddock.fleet: as an editable install would have it.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/ansible_collections/paddock"
ln -sfn "$PWD" "$site/ansible_collections/paddock/fleet"
# So is the probe. pip would fetch a build backend for it; what it needs is in the lock.
echo "$PWD/probe/src" >"$site/paddock_probe.pth"
printf '#!/bin/sh\nexec "$(dirname "$0")/python" -m paddock_probe "$@"\n' >.venv/bin/paddock-probe
chmod +x .venv/bin/paddock-probe
touch .venv/done
