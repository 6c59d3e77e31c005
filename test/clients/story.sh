#!/usr/bin/env bash
# The story with the AWS CLI, version 1 or 2. Arguments: a folder for files. The environment is that of aws.env.
set -euo pipefail
files=$1

# shellcheck source=test/clients/cli.sh
. "$(dirname "$0")/cli.sh"

printf 'attack at dawn' >"$files/plaintext"
source_context=tenant=blue,purpose=story
destination_context=tenant=green

one=$(kms create-key --description one --tags TagKey=team,TagValue=a TagKey=stage,TagValue=test --query KeyMetadata.KeyId)
two=$(kms create-key --tags TagKey=team,TagValue=b --query KeyMetadata.KeyId)
kms create-alias --alias-name alias/story-cli --target-key-id "$one"
same "key of the alias" "$(kms describe-key --key-id alias/story-cli --query '[KeyMetadata.KeyId, KeyMetadata.Description, KeyMetadata.KeyState]')" "$one	one	Enabled"

blob "$files/under-one" CiphertextBlob encrypt --key-id alias/story-cli --plaintext "fileb://$files/plaintext" --encryption-context "$source_context"
blob "$files/under-two" CiphertextBlob re-encrypt --ciphertext-blob "fileb://$files/under-one" --source-encryption-context "$source_context" \
	--destination-key-id "$two" --destination-encryption-context "$destination_context"
blob "$files/opened" Plaintext decrypt --ciphertext-blob "fileb://$files/under-two" --encryption-context "$destination_context"
cmp "$files/plaintext" "$files/opened"
blob "$files/opened" Plaintext decrypt --ciphertext-blob "fileb://$files/under-one" --encryption-context "$source_context"
cmp "$files/plaintext" "$files/opened"
refused InvalidCiphertextException decrypt --ciphertext-blob "fileb://$files/under-two" --encryption-context "$source_context"
refused InvalidCiphertextException decrypt --ciphertext-blob "fileb://$files/under-two"
refused InvalidCiphertextException re-encrypt --ciphertext-blob "fileb://$files/under-one" --destination-key-id "$two"
refused IncorrectKeyException decrypt --key-id "$one" --ciphertext-blob "fileb://$files/under-two" --encryption-context "$destination_context"

kms generate-data-key --key-id "$two" --key-spec AES_256 --query '[Plaintext, CiphertextBlob]' >"$files/data-key"
read -r plaintext ciphertext <"$files/data-key"
base64 -d <<<"$ciphertext" >"$files/data-key.blob"
same "data key" "$(kms decrypt --ciphertext-blob "fileb://$files/data-key.blob" --query Plaintext)" "$plaintext"
same "length of the data key" "$(base64 -d <<<"$plaintext" | wc -c)" 32
same "length of random bytes" "$(kms generate-random --number-of-bytes 48 --query Plaintext | base64 -d | wc -c)" 48

same "keys listed" "$(kms list-keys --query "Keys[?KeyId=='$one' || KeyId=='$two'] | length(@)")" 2
same "aliases listed" "$(kms list-aliases --key-id "$one" --query 'Aliases[].AliasName')" alias/story-cli

kms disable-key --key-id "$one"
refused DisabledException encrypt --key-id "$one" --plaintext "fileb://$files/plaintext"
refused DisabledException decrypt --ciphertext-blob "fileb://$files/under-one" --encryption-context "$source_context"
kms enable-key --key-id "$one"
blob "$files/opened" Plaintext decrypt --ciphertext-blob "fileb://$files/under-one" --encryption-context "$source_context"
cmp "$files/plaintext" "$files/opened"

kms update-alias --alias-name alias/story-cli --target-key-id "$two"
same "key of the moved alias" "$(kms describe-key --key-id alias/story-cli --query KeyMetadata.KeyId)" "$two"
kms delete-alias --alias-name alias/story-cli
refused NotFoundException describe-key --key-id alias/story-cli
