#!/usr/bin/env bash
# The life of a key with the AWS CLI, version 1 or 2: what an operator does over the years. Arguments: a folder for files.
# The environment is that of aws.env.
set -euo pipefail
files=$1
# shellcheck source=test/clients/cli.sh
. "$(dirname "$0")/cli.sh"

printf 'attack at dawn' >"$files/plaintext"

# opens FILE: the ciphertext is that of the plaintext.
opens() {
	blob "$files/opened" Plaintext decrypt --ciphertext-blob "fileb://$1"
	cmp "$files/plaintext" "$files/opened"
}

state() { kms describe-key --key-id "$1" --query KeyMetadata.KeyState; }
current() { kms describe-key --key-id "$1" --query KeyMetadata.CurrentKeyMaterialId; }

### Tags

key=$(kms create-key --description "invoices" --tags TagKey=team,TagValue=a --query KeyMetadata.KeyId)
kms tag-resource --key-id "$key" --tags TagKey=team,TagValue=b TagKey=stage,TagValue=live
kms untag-resource --key-id "$key" --tag-keys stage
same "tags" "$(kms list-resource-tags --key-id "$key" --query 'Tags[].[TagKey, TagValue]')" "team	b"
refused TagException tag-resource --key-id "$key" --tags TagKey=aws:team,TagValue=a

### Who may use it: the key policy

account=$(kms describe-key --key-id "$key" --query KeyMetadata.AWSAccountId)
policy() {
	cat <<-JSON
		{"Version": "2012-10-17", "Statement": [
		  {"Sid": "Administrators", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::$account:root"}, "Action": "$1", "Resource": "*"}
		]}
	JSON
}
policy 'kms:*' >"$files/policy.json"
kms put-key-policy --key-id "$key" --policy-name default --policy "file://$files/policy.json"
same "statement" "$(kms get-key-policy --key-id "$key" --policy-name default --query Policy | grep -c Administrators)" 1
# A policy under which nobody could change it again is refused, and so is one that is none.
policy kms:Decrypt >"$files/lock-out.json"
refused MalformedPolicyDocumentException put-key-policy --key-id "$key" --policy-name default --policy "file://$files/lock-out.json"
refused MalformedPolicyDocumentException put-key-policy --key-id "$key" --policy-name default --policy '{"Version": "2012-10-17"}'
same "names of policies" "$(kms list-key-policies --key-id "$key" --query 'PolicyNames[]')" default

### Rotation: new material in time or on demand, and old ciphertext opens for ever

blob "$files/first" CiphertextBlob encrypt --key-id "$key" --plaintext "fileb://$files/plaintext"
kms enable-key-rotation --key-id "$key"
same "rotation" "$(kms get-key-rotation-status --key-id "$key" --query KeyRotationEnabled)" True
kms disable-key-rotation --key-id "$key"
same "rotation" "$(kms get-key-rotation-status --key-id "$key" --query KeyRotationEnabled)" False
if knows enable-key-rotation RotationPeriodInDays; then
	kms enable-key-rotation --key-id "$key" --rotation-period-in-days 180
	same "period" "$(kms get-key-rotation-status --key-id "$key" --query RotationPeriodInDays)" 180
fi
before=$(current "$key")
if knows rotate-key-on-demand; then
	kms rotate-key-on-demand --key-id "$key" >"$files/rotated"
	same "rotations" "$(kms list-key-rotations --key-id "$key" --query 'Rotations[].RotationType')" ON_DEMAND
	opens "$files/first"
fi
# ReEncrypt moves ciphertext to the current material, and the plaintext stays in the service. Versions of the CLI that
# tell the material's id came with the list of all materials.
blob "$files/second" CiphertextBlob re-encrypt --ciphertext-blob "fileb://$files/first" --destination-key-id "$key"
opens "$files/second"
if knows list-key-rotations IncludeKeyMaterial; then
	same "materials" "$(kms list-key-rotations --key-id "$key" --include-key-material ALL_KEY_MATERIAL --query 'Rotations[].[KeyMaterialId, KeyMaterialState]')" \
		"$before	NON_CURRENT"$'\n'"$(current "$key")	CURRENT"
	same "materials of the move" "$(kms re-encrypt --ciphertext-blob "fileb://$files/first" --destination-key-id "$key" \
		--query '[SourceKeyMaterialId, DestinationKeyMaterialId]')" "$before	$(current "$key")"
fi

### Import: material of your own

openssl rand 32 >"$files/material"

# ask ALGORITHM gets a wrapping key of the token and a token that says what it is for, both good for a day.
ask() {
	kms get-parameters-for-import --key-id "$own" --wrapping-algorithm "$1" --wrapping-key-spec RSA_4096 --query '[PublicKey, ImportToken]' >"$files/parameters"
	local public token
	read -r public token <"$files/parameters"
	base64 -d <<<"$public" >"$files/public.der"
	base64 -d <<<"$token" >"$files/token"
}

# oaep FROM TO encrypts under the wrapping key.
oaep() {
	openssl pkeyutl -encrypt -pubin -keyform DER -inkey "$files/public.der" -in "$1" -out "$2" \
		-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
}

hex() { od -An -tx1 "$1" | tr -d ' \n'; }

# aes FROM TO encrypts under a key of the moment, which others on the machine can see in the list of processes while
# openssl runs: do it where there are no others. The IV is that of RFC 5649.
aes() { openssl enc -id-aes256-wrap-pad -iv A65959A6 -K "$(hex "$files/moment")" -in "$1" -out "$2"; }

bring() {
	kms import-key-material --key-id "$own" --import-token "fileb://$files/token" --encrypted-key-material "fileb://$files/encrypted" \
		--expiration-model KEY_MATERIAL_DOES_NOT_EXPIRE "$@" >"$files/imported"
}

own=$(kms create-key --origin EXTERNAL --description "from our own generator" --query KeyMetadata.KeyId)
same "state without material" "$(state "$own")" PendingImport
ask RSAES_OAEP_SHA_256
oaep "$files/material" "$files/encrypted"
bring
same "state with material" "$(state "$own")" Enabled
blob "$files/under-own" CiphertextBlob encrypt --key-id "$own" --plaintext "fileb://$files/plaintext"

# Deleting the material makes the key useless at once. The same material, and no other, brings it back.
kms delete-imported-key-material --key-id "$own" >"$files/deleted"
refused KMSInvalidStateException decrypt --ciphertext-blob "fileb://$files/under-own"
mv "$files/encrypted" "$files/encrypted-before"
openssl rand 32 >"$files/other"
oaep "$files/other" "$files/encrypted"
refused IncorrectKeyMaterialException import-key-material --key-id "$own" --import-token "fileb://$files/token" \
	--encrypted-key-material "fileb://$files/encrypted" --expiration-model KEY_MATERIAL_DOES_NOT_EXPIRE
mv "$files/encrypted-before" "$files/encrypted"
bring
opens "$files/under-own"

# RSA_AES_KEY_WRAP is for material of any length: it is encrypted under an AES key, and that under the wrapping key.
openssl rand 32 >"$files/moment"
if aes "$files/material" "$files/wrapped" 2>"$files/openssl-said"; then
	kms delete-imported-key-material --key-id "$own" >"$files/deleted"
	ask RSA_AES_KEY_WRAP_SHA_256
	oaep "$files/moment" "$files/wrapped-moment"
	cat "$files/wrapped-moment" "$files/wrapped" >"$files/encrypted"
	bring
	opens "$files/under-own"
else
	grep -Eq '[Uu]nknown (cipher|option)|wrap mode not allowed' "$files/openssl-said" || fail "openssl: $(cat "$files/openssl-said")"
	echo "skipped: $(openssl version) does not wrap under AES with padding"
fi

# A key of imported material is rotated to material that was imported for that.
if knows import-key-material ImportType; then
	ask RSAES_OAEP_SHA_256
	oaep "$files/other" "$files/encrypted"
	bring --import-type NEW_KEY_MATERIAL --key-material-description "for next year"
	before=$(current "$own")
	kms rotate-key-on-demand --key-id "$own" >"$files/rotated"
	[ "$(current "$own")" != "$before" ] || fail "the imported material is not the current one"
	opens "$files/under-own"
fi

### Last use, and the end

if knows get-key-last-usage; then
	same "last use" "$(kms get-key-last-usage --key-id "$own" --query KeyLastUsage.Operation)" Decrypt
fi
kms schedule-key-deletion --key-id "$own" --pending-window-in-days 7 >"$files/scheduled"
same "state before the end" "$(state "$own")" PendingDeletion
refused KMSInvalidStateException decrypt --ciphertext-blob "fileb://$files/under-own"
kms cancel-key-deletion --key-id "$own" >"$files/cancelled"
same "state of a saved key" "$(state "$own")" Disabled
kms enable-key --key-id "$own"
opens "$files/under-own"
kms schedule-key-deletion --key-id "$key" >"$files/scheduled"
same "waiting period" "$(kms describe-key --key-id "$key" --query KeyMetadata.KeyState)" PendingDeletion
