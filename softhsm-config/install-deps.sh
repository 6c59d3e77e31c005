#!/usr/bin/env bash
# Installs what building and testing needs and the machine lacks, on Debian and Ubuntu. Without root it names the command
# for an administrator. Arguments: further packages to have.
set -euo pipefail

find_module() {
	for lib in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so; do
		[ -e "$lib" ] && { echo "$lib"; return 0; }
	done
	return 1
}
if [ "${1:-}" = --module ]; then
	find_module
	exit
fi

missing=()
find_module >/dev/null && command -v softhsm2-util >/dev/null || missing+=(softhsm2)
if command -v gcc >/dev/null; then
	echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || missing+=(libc6-dev)
else
	missing+=(gcc libc6-dev)
fi
for package in "$@"; do
	dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done

need_go=$(awk '$1 == "go" { print $2 }' go.mod)
if ! command -v go >/dev/null; then
	echo "Go $need_go or later is needed: see https://go.dev/dl/" >&2
	exit 1
fi

[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "Missing: ${missing[*]}. An administrator must run:" >&2
	echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
