# How Nginx ends: for ExecStop= with the master's PID, for ExecStopPost= without.

# What a master has started. A worker that was told to finish calls itself otherwise.
unaware() {
    for file in $(grep -lszE '^nginx: (worker|cache manager|cache loader) process$' /proc/[0-9]*/cmdline); do
        pid=${file#/proc/} pid=${pid%/*}
        # Not another Nginx, in a container.
        if grep -qs '/nginx\.service$' "/proc/$pid/cgroup"; then echo "$pid"; fi
    done
}

wait_until_all_know() {
    for _ in $(seq 40); do
        [ "$(unaware)" ] || break
        sleep 0.05
    done
}

if [ "$1" ]; then
    kill -QUIT "$1" || exit 0
    if systemctl list-jobs --plain --no-legend nginx.service | grep -q restart; then
        # The next master begins at once, while the old workers finish: else no client could connect meanwhile.
        wait_until_all_know
        kill -KILL "$1" 2>/dev/null
    else
        tail --pid="$1" --sleep-interval=0.1 --follow /dev/null
    fi
else
    # The master was killed, and the workers that it left have the ports still.
    unaware | xargs --no-run-if-empty kill -QUIT
    wait_until_all_know
    unaware | xargs --no-run-if-empty kill -KILL
fi
