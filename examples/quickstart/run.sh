#!/bin/sh
# Runs the quickstart as a container engine would: keepalive is PID 1 of a fresh PID namespace with a /proc of its own.
# Where namespaces are not permitted it runs as a plain process, and a child subreaper. Usage: run.sh path/to/keepalive
set -eu
keepalive=$1
example=$(dirname "$0")
QUICKSTART_DATA=$(mktemp -d "${TMPDIR:-/tmp}/keepalive-quickstart.XXXXXX")
export QUICKSTART_DATA
trap 'rm -rf "$QUICKSTART_DATA"' EXIT

# --kill-child: should unshare be killed, keepalive receives SIGTERM and stops everything in order.
namespace='unshare --pid --fork --mount-proc --kill-child=TERM'
rootless="$namespace --user --map-root-user"
if $namespace true 2>/dev/null; then
    enter=$namespace
    echo "keepalive is PID 1 of a PID namespace of its own here, as it would be in a container."
elif $rootless true 2>/dev/null; then
    enter=$rootless
    echo "keepalive is PID 1 of a PID namespace of its own here (in a user namespace: you are not root)."
else
    enter=
    echo "PID namespaces are not permitted here: keepalive runs as a plain process and a child subreaper instead."
fi
port=${QUICKSTART_PORT:-808}
cat <<TEXT

  prepare   a oneshot: writes the page, then the others may start
  web       two instances of a web server: curl http://127.0.0.1:${port}0 and http://127.0.0.1:${port}1
  worker    asks the web servers in turn and crashes now and then: see it come back

Lines that begin with "keepalive:" are its own, the others are printed by the services.
Kill a web server from another terminal and see it come back:  kill -9 \$(pgrep -of 'perl web.pl')
Ctrl-C stops everything in order.

TEXT

# In the background, because a shell that waits for a foreground process handles no signal. Ctrl-C needs no help: the
# terminal sends it to keepalive too. Other signals come to this shell alone and are passed on.
$enter "$keepalive" -c "$example/keepalive.toml" <&0 &
child=$!

# shellcheck disable=SC2317
pass_on() {
    supervisor=$child
    [ -z "$enter" ] || read -r supervisor < "/proc/$child/task/$child/children" || true
    kill -s "$1" "$supervisor" 2>/dev/null || true
}
trap : INT
trap 'pass_on TERM' TERM HUP
trap 'pass_on QUIT' QUIT

code=0
while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
done
echo
if [ "$code" -eq 0 ]; then
    echo "Stopped in order, exit code 0. Nothing is left behind."
else
    echo "Ended with exit code $code; keepalive's last line above says why."
fi
exit "$code"
