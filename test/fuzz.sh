#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other. Argument: for how long each, such as 20s.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?how long, such as 20s}
targets=0
for package in $(go list ./...); do
	listed=$(go test -list '^Fuzz' "$package")
	for target in $(awk '/^Fuzz/' <<<"$listed"); do
		echo "$package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$package"
		targets=$((targets + 1))
	done
done
[ "$targets" -gt 0 ] || {
	echo "no fuzz target was found" >&2
	exit 1
}
echo "$targets fuzz targets ran for $duration each"
