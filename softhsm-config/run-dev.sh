#!/usr/bin/env bash
# Makes a development server in DEV_DIR, unless it is there, and runs it in the foreground.
set -euo pipefail
umask 077
here=$(dirname "$0")
listen=${LISTEN:-127.0.0.1:8600}
listen_admin=${LISTEN_ADMIN:-127.0.0.1:8601}
mkdir -p "${DEV_DIR:-.dev}"
dir=$(cd "${DEV_DIR:-.dev}" && pwd)

case $dir in
*[!A-Za-z0-9/._-]*)
	echo "DEV_DIR is $dir: only letters, digits and / . _ - can be used" >&2
	exit 1
	;;
esac

fill() {
	sed -e "s|@DIR@|$dir|g" -e "s|@LISTEN@|$listen|" -e "s|@LISTEN_ADMIN@|$listen_admin|" \
		-e "s|@MODULE@|$module|" -e "s|@HOME_OF_KEYS@|${KEY_HOME:-token}|" -e "s|@SESSIONS@|${TOKEN_SESSIONS:-0}|" \
		-e "s|@AUDIT_SYNC@|${AUDIT_SYNC:-1s}|" "$1"
}
# A PIN is there whole or not at all.
make_pin() {
	[ -s "$1" ] && return
	head -c 24 /dev/urandom | base64 | tr -d '\n' >"$1.new"
	mv "$1.new" "$1"
}

if [ ! -e "$dir/hsmkms.yaml" ]; then
	module=$("$here/install-deps.sh" --module)
	mkdir -p "$dir/tokens"
	make_pin "$dir/pin"
	make_pin "$dir/so-pin"
	fill "$here/softhsm2.conf.template" >"$dir/softhsm2.conf"
	fill "$here/hsmkms.yaml.template" >"$dir/hsmkms.yaml.new"
	mv "$dir/hsmkms.yaml.new" "$dir/hsmkms.yaml"
fi
bin/hsmkms init --config "$dir/hsmkms.yaml" --new-token --account 111122223333 --credentials-file "$dir/credentials"
exec bin/hsmkms serve --config "$dir/hsmkms.yaml" --listen "$listen" --admin-listen "$listen_admin"
