# shellcheck shell=bash
# What the stories with the AWS CLI, version 1 or 2, share. To be sourced; $files is a folder for files. The environment
# is that of aws.env.

fail() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Old versions of the CLI do not know AWS_ENDPOINT_URL_KMS. Binary parameters are files, which both versions read alike.
kms() { aws kms --endpoint-url "$AWS_ENDPOINT_URL_KMS" --output text "$@"; }

# blob FILE QUERY COMMAND... keeps a binary member of an answer.
blob() {
	local file=$1 query=$2
	shift 2
	kms "$@" --query "$query" >"$file.base64"
	base64 -d "$file.base64" >"$file"
}

# refused CODE COMMAND... must fail with an error of AWS.
refused() {
	local code=$1
	shift
	if kms "$@" >"$files/refused" 2>&1; then fail "$*: succeeded"; fi
	grep -q "An error occurred ($code) when calling" "$files/refused" || fail "$*: not $code: $(cat "$files/refused")"
}

same() { [ "$2" = "$3" ] || fail "$1: '$2' is not '$3'"; }

# knows COMMAND [MEMBER] tells whether this version of the CLI has a command with a parameter. If not, it says what is
# skipped. The published model must have both, so that nothing is skipped because it is misspelled here.
knows() {
	local operation=${1//-/ } skeleton
	operation=$(printf '%s' "${operation^}" | sed -E 's/ (.)/\U\1/g')
	grep -q "\"$operation\":" "$model" || fail "no operation $operation"
	[ $# -eq 1 ] || grep -q "\"$2\":" "$model" || fail "no member $2"
	if skeleton=$(aws kms "$1" --generate-cli-skeleton input 2>&1); then
		[ $# -gt 1 ] || return 0
		grep -q "\"$2\":" <<<"$skeleton" && return 0
	else
		grep -q 'Invalid choice' <<<"$skeleton" || fail "$1: $skeleton"
	fi
	echo "skipped: $(aws --version 2>&1 | cut -d' ' -f1) does not know $*"
	return 1
}
model=$(dirname "${BASH_SOURCE[0]}")/../../api/model/kms-2014-11-01.json
