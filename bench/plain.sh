#!/bin/sh
# The yardstick of the first deploy: the same end state by a plain script over SSH, all hosts at
# once, and nothing more: no check, no proof, no second run.
#   plain.sh SSH_CONFIG FILES BALANCER BACKEND...
# FILES has one tar archive a host, with what the roles would have written: units, configuration.
set -eu
ssh_config=$1 files=$2 balancer=$3
shift 3
here=$(cd "$(dirname "$0")/.." && pwd)

backend() {
  {
    cat "$files/$1.tar"
  } | ssh -F "$ssh_config" "$1" tar -x -C /
  tar -c -C "$here" --exclude=__pycache__ --exclude=tests app_src requirements.txt |
    ssh -F "$ssh_config" "$1" 'mkdir -p /tmp/src && tar -x -C /tmp/src'
  ssh -F "$ssh_config" "$1" sh -eux <<'EOF'
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -qy --no-install-recommends python3 python3-venv
python3 -m venv /opt/paddock/uv
sed -n '/^uv==/,/[^\\]$/p' /tmp/src/requirements.txt >/tmp/src/uv.txt
/opt/paddock/uv/bin/pip install -q --require-hashes --only-binary=:all: -r /tmp/src/uv.txt
systemctl daemon-reload
for app in requestme welcome; do
  id "$app" 2>/dev/null || useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin "$app"
  chown -R "root:$app" "/etc/paddock/$app"
  release=$(sed -n 's/^WorkingDirectory=//; s/\/app$//p' "/etc/systemd/system/$app-blue.service")
  mkdir -p "$release"
  cp -r "/tmp/src/app_src/$app" "$release/app"
  /opt/paddock/uv/bin/uv venv -q --relocatable --python /usr/bin/python3 "$release/venv"
  UV_SYSTEM_CERTS=true /opt/paddock/uv/bin/uv pip install -q --require-hashes --only-binary=:all: --compile-bytecode \
    --python "$release/venv" -r "$release/app/requirements.txt"
  systemctl enable -q --now "$app.socket"
  systemctl start "$app-blue.service"
done
EOF
}

balance() {
  ssh -F "$ssh_config" "$1" 'export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -qy --no-install-recommends nginx logrotate'
  ssh -F "$ssh_config" "$1" tar -x -C / <"$files/$1.tar"
  ssh -F "$ssh_config" "$1" 'systemctl daemon-reload && systemctl restart nginx'
}

pids=
balance "$balancer" & pids="$pids $!"
for host; do
  backend "$host" & pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
