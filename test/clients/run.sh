#!/usr/bin/env bash
# Runs the AWS clients that people have, the AWS CLI and boto3, against a server that `make run` starts as on a
# newcomer's machine, and looks at what `make run` promises. Installs the clients, as root; else it fails and names the
# command. Prints little, and all there is when something fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
make_pid=
server_pid=

# fail MESSAGE prints all that the processes have said.
fail() {
	local log
	for log in "$work"/*.log; do
		[ -s "$log" ] && { echo "--- $(basename "$log")"; cat "$log"; } >&2
	done
	echo "test/clients: $*" >&2
	exit 1
}

cleanup() {
	# What was started is ended by its process id, and waited for.
	[ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
	[ -z "$make_pid" ] || { kill "$make_pid" 2>/dev/null || true; wait "$make_pid" 2>/dev/null || true; }
	rm -rf "$work"
}
trap cleanup EXIT
trap 'fail "line $LINENO failed"' ERR

# step NAME COMMAND... runs a command with its output in a log.
step() {
	local name=$1
	shift
	"$@" >"$work/$name.log" 2>&1 || fail "$name failed"
}

aws_works() { aws --version >/dev/null 2>&1; }

# find_python finds a Python that has boto3: there may be several Pythons.
find_python() {
	local candidate
	for candidate in $(type -ap python3); do
		"$candidate" -c 'import boto3' 2>/dev/null && { echo "$candidate"; return 0; }
	done
	return 1
}

find_clients() {
	local missing=()
	aws_works || missing+=(awscli)
	find_python >/dev/null || missing+=(python3-boto3)
	[ ${#missing[@]} -eq 0 ] || step install softhsm-config/install-deps.sh "${missing[@]}"
	hash -r
	aws_works || fail "the AWS CLI does not work"
	python=$(find_python) || fail "no Python has boto3"
}

# child_of PID gives the process that a process waits for. Processes come and go while it looks, which is no failure.
child_of() { { grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status || true; } | cut -d/ -f3; }

# start NAME starts the server and waits for aws.env, when the server must answer already.
start() {
	make run >"$work/$1.log" 2>&1 &
	make_pid=$!
	local wait
	for wait in $(seq 6000); do # two minutes, for it is built first
		[ ! -e "$DEV_DIR/aws.env" ] || break
		kill -0 "$make_pid" 2>/dev/null || fail "$1: make run ended"
		sleep 0.02
	done
	[ -e "$DEV_DIR/aws.env" ] || fail "$1: no aws.env"
	# shellcheck source=/dev/null
	. "$DEV_DIR/aws.env"
	local address=${AWS_ENDPOINT_URL_KMS#http://}
	(exec 3<>"/dev/tcp/${address%:*}/${address#*:}") 2>"$work/connect.log" || fail "$1: aws.env is there, and nobody answers at $address"
	server_pid=$(child_of "$make_pid")
	[ -n "$server_pid" ] || fail "$1: no server"
}

# stop NAME ends the server as a supervisor does.
stop() {
	local status=0
	kill -TERM "$server_pid"
	wait "$make_pid" || status=$?
	make_pid= server_pid=
	[ "$status" -eq 0 ] || fail "$1: the server ended with status $status"
	[ ! -e "$DEV_DIR/aws.env" ] || fail "$1: aws.env outlives the server"
}

# secrets_kept prints what must survive a second make run.
secrets_kept() { (cd "$DEV_DIR" && sha256sum credentials pin so-pin hsmkms.yaml softhsm2.conf); }

kms() { aws kms --endpoint-url "$AWS_ENDPOINT_URL_KMS" --output text "$@"; }

make_run() {
	export DEV_DIR="$work/dev" LISTEN=127.0.0.1:0 LISTEN_ADMIN=127.0.0.1:0
	# Nothing of this machine's own settings, and nothing that asks other machines.
	export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true AWS_PAGER=
	export PYTHONDONTWRITEBYTECODE=1
	unset AWS_PROFILE AWS_SESSION_TOKEN
	start first-run
	local files="$work/files"
	mkdir "$files"
	step story.sh test/clients/story.sh "$files"
	step story.py "$python" test/clients/story.py
	step life.sh test/clients/life.sh "$files"
	step life.py "$python" test/clients/life.py
	step identities.sh test/clients/identities.sh "$files" bin/hsmkms "$DEV_DIR/admin.sock"
	grep -h '^skipped: ' "$work"/life.*.log || true # an old client, or openssl
	local before keys
	before=$(secrets_kept) keys=$(kms list-keys --query 'sort(Keys[].KeyId)')
	[ "$(find "$DEV_DIR" -type f -perm /077)" = "" ] || fail "others can read $(find "$DEV_DIR" -type f -perm /077)"
	if make run >"$work/beside.log" 2>&1; then fail "a second make run beside the first succeeded"; fi
	grep -q 'file is in use by another process' "$work/beside.log" || fail "a second make run beside the first says something else"
	[ -e "$DEV_DIR/aws.env" ] || fail "a second make run took the aws.env of the first"
	stop first-run

	start second-run
	[ "$(secrets_kept)" = "$before" ] || fail "a second make run changed settings or credentials"
	[ "$(kms list-keys --query 'sort(Keys[].KeyId)')" = "$keys" ] || fail "a second make run lost keys"
	kms decrypt --ciphertext-blob "fileb://$files/under-one" --encryption-context tenant=blue,purpose=story --query Plaintext |
		base64 -d | cmp - "$files/plaintext" || fail "a second make run cannot open what the first encrypted"
	stop second-run
}

find_clients
make_run
step newcomer.sh test/clients/newcomer.sh
echo "test/clients: $(aws --version 2>&1 | cut -d' ' -f1) and $("$python" -c 'import boto3; print("boto3", boto3.__version__)') tell the same story: ok"
