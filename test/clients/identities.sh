#!/usr/bin/env bash
# The story of identities with the AWS CLI: an account made over the admin socket, a user with an access key and a policy, a
# role that it assumes, and what each of them may do. Arguments: a folder for files, the hsmkms binary and its admin socket.
# The environment is that of aws.env.
set -euo pipefail
# shellcheck source=test/clients/cli.sh
. "$(dirname "$0")/cli.sh"
files=$1 hsmkms=$2 socket=$3
trap 'fail "line $LINENO failed"' ERR

iam() { aws iam --endpoint-url "$AWS_ENDPOINT_URL_IAM" --output text "$@"; }
sts() { aws sts --endpoint-url "$AWS_ENDPOINT_URL_STS" --output text "$@"; }

# denied CODE COMMAND... must fail with an error of AWS.
denied() {
	local code=$1
	shift
	if "$@" >"$files/denied" 2>&1; then fail "$*: succeeded"; fi
	grep -q "An error occurred ($code) when calling" "$files/denied" || fail "$*: not $code: $(cat "$files/denied")"
}

# become ID SECRET [TOKEN] has the commands that follow sent by somebody else.
become() {
	export AWS_ACCESS_KEY_ID=$1 AWS_SECRET_ACCESS_KEY=$2
	unset AWS_SESSION_TOKEN
	[ $# -lt 3 ] || export AWS_SESSION_TOKEN=$3
}

whoami() { sts get-caller-identity --query Arn; }

# An account of one's own.
account=200000000001
"$hsmkms" account create "$account" --admin-socket "$socket" >"$files/account.env"
"$hsmkms" account list --admin-socket "$socket" | grep -qx "$account" || fail "account list lacks the account"
# shellcheck source=/dev/null
. "$files/account.env"
same "the root user" "$(whoami)" "arn:aws:iam::$account:root"
root=("$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY")
kms create-key >"$files/key-of-root"

# A user, an access key, a policy.
iam create-user --user-name alice --tags Key=team,Value=red --query User.Arn >"$files/alice"
same "the user" "$(cat "$files/alice")" "arn:aws:iam::$account:user/alice"
read -r -a alice <<<"$(iam create-access-key --user-name alice --query 'AccessKey.[AccessKeyId,SecretAccessKey]')"
printf '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:GetUser","iam:ListUserPolicies"],"Resource":"*"}]}' >"$files/policy.json"
iam put-user-policy --user-name alice --policy-name look --policy-document "file://$files/policy.json"
same "the policy" "$(iam get-user-policy --user-name alice --policy-name look --query 'PolicyDocument.Statement[0].Action[0]')" iam:GetUser
printf '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:user/alice"},"Action":"sts:AssumeRole"}]}' "$account" >"$files/trust.json"
role=$(iam create-role --role-name worker --assume-role-policy-document "file://$files/trust.json" --query Role.Arn)
printf '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListRoles","Resource":"*"}]}' >"$files/managed.json"
managed=$(iam create-policy --policy-name roles --policy-document "file://$files/managed.json" --query Policy.Arn)
iam attach-role-policy --role-name worker --policy-arn "$managed"

become "${alice[@]}"
same "the user" "$(whoami)" "arn:aws:iam::$account:user/alice"
same "the user's own name" "$(iam get-user --query User.UserName)" alice
denied AccessDenied iam list-users
denied AccessDeniedException kms list-keys

# A session of the role.
read -r -a session <<<"$(sts assume-role --role-arn "$role" --role-session-name morning --query 'Credentials.[AccessKeyId,SecretAccessKey,SessionToken]')"
become "${session[@]}"
same "the session" "$(whoami)" "arn:aws:sts::$account:assumed-role/worker/morning"
same "the roles" "$(iam list-roles --query 'Roles[].RoleName')" worker
denied AccessDenied iam get-user --user-name alice
become "${session[0]}" "${session[1]}"
denied InvalidClientTokenId whoami
become "${session[@]:0:2}" nonsense
denied InvalidClientTokenId whoami

# An inactive key fails at the next request.
become "${root[@]}"
iam update-access-key --user-name alice --access-key-id "${alice[0]}" --status Inactive
become "${alice[@]}"
denied InvalidClientTokenId whoami
become "${root[@]}"
same "the status" "$(iam list-access-keys --user-name alice --query 'AccessKeyMetadata[0].Status')" Inactive

# All is taken down in the order that AWS demands.
denied DeleteConflict iam delete-user --user-name alice
iam delete-access-key --user-name alice --access-key-id "${alice[0]}"
iam delete-user-policy --user-name alice --policy-name look
iam delete-user --user-name alice
denied NoSuchEntity iam get-user --user-name alice
iam detach-role-policy --role-name worker --policy-arn "$managed"
iam delete-role --role-name worker
iam delete-policy --policy-arn "$managed"

# A new root access key takes the place of the one before.
"$hsmkms" account rotate-root "$account" --admin-socket "$socket" >"$files/account.env"
denied InvalidClientTokenId whoami
# shellcheck source=/dev/null
. "$files/account.env"
same "the root user" "$(whoami)" "arn:aws:iam::$account:root"
