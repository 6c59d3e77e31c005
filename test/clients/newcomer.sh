#!/usr/bin/env bash
# Looks at what a newcomer without root meets: the command for an administrator when the machine lacks something, and
# a development server that works when it does not. Needs bin/hsmkms.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
server_pid=
cleanup() {
	[ -z "$server_pid" ] || { kill "$server_pid" 2>/dev/null && wait "$server_pid"; } || true
	rm -rf "$folder"
}
trap cleanup EXIT

fail() {
	echo "newcomer.sh: $*" >&2
	exit 1
}

trap 'fail "line $LINENO failed"' ERR

# as_newcomer runs a command as somebody who has no rights. It is no function, so that $! is the command's process.
as_newcomer=()
[ "$(id -u)" -ne 0 ] || as_newcomer=(setpriv --reuid=65534 --regid=65534 --clear-groups --)

# machine TOOL... makes a folder for PATH that has nothing but the tools.
machine() {
	rm -rf "$folder/path"
	mkdir "$folder/path"
	local tool
	for tool in "$@"; do
		printf '#!/bin/sh\nexec "%s" "$@"\n' "$(type -P "$tool")" >"$folder/path/$tool"
	done
	chmod -R a+rx "$folder/path"
}

# says STATUS PATTERN COMMAND... runs a command on the machine and compares what it says.
says() {
	local want_status=$1 want=$2 status=0 said
	shift 2
	said=$(cd "$folder/tree" && "${as_newcomer[@]}" env -i PATH="$folder/path" "$@" 2>&1) || status=$?
	[ "$status" -eq "$want_status" ] || fail "status $status, not $want_status, of $*: $said"
	# shellcheck disable=SC2053
	[[ "$said" == $want ]] || fail "$* says: $said"
}

missing() {
	printf 'Missing: %s. An administrator must run:\n  apt-get update && apt-get install -y --no-install-recommends %s' "$*" "$*"
}

chmod 755 "$folder"
mkdir "$folder/tree" "$folder/dev"
cp -r Makefile go.mod softhsm-config bin "$folder/tree"
chmod -R a+rX "$folder/tree"
[ "$(id -u)" -ne 0 ] || chown 65534:65534 "$folder/dev"

basics=(bash sh awk id dpkg make)
machine "${basics[@]}" go gcc softhsm2-util
says 0 "" softhsm-config/install-deps.sh
machine "${basics[@]}" go gcc
says 1 "$(missing softhsm2)" softhsm-config/install-deps.sh
says 2 "*$(missing softhsm2)*" make run
machine "${basics[@]}" go
says 1 "$(missing softhsm2 gcc libc6-dev)" softhsm-config/install-deps.sh
says 1 "$(missing softhsm2 gcc libc6-dev no-such-package)" softhsm-config/install-deps.sh no-such-package
machine "${basics[@]}" gcc
says 1 "Go $(awk '$1 == "go" { print $2 }' go.mod) or later is needed: see https://go.dev/dl/" softhsm-config/install-deps.sh

cd "$folder/tree"
export DEV_DIR=$folder/dev LISTEN=127.0.0.1:0 LISTEN_ADMIN=127.0.0.1:0
"${as_newcomer[@]}" softhsm-config/run-dev.sh &
server_pid=$!
for _ in $(seq 3000); do
	[ ! -e "$DEV_DIR/aws.env" ] || break
	kill -0 "$server_pid" 2>/dev/null || fail "the server ended"
	sleep 0.02
done
[ -e "$DEV_DIR/aws.env" ] || fail "no aws.env"
kill -TERM "$server_pid"
wait "$server_pid" || fail "the server ended with status $?"
server_pid=
