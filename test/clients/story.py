"""The story with boto3. The environment is that of aws.env."""

from support import kms, refused, same

SOURCE_CONTEXT = {"tenant": "blue", "purpose": "story"}
DESTINATION_CONTEXT = {"tenant": "green"}
PLAINTEXT = b"attack at dawn"


def keys():
    tags = [{"TagKey": "team", "TagValue": "a"}, {"TagKey": "stage", "TagValue": "test"}]
    one = kms.create_key(Description="one", Tags=tags)["KeyMetadata"]
    two = kms.create_key(Tags=[{"TagKey": "team", "TagValue": "b"}])["KeyMetadata"]
    same((one["KeyState"], one["KeySpec"], one["Description"]), ("Enabled", "SYMMETRIC_DEFAULT", "one"))
    kms.create_alias(AliasName="alias/story-boto3", TargetKeyId=one["KeyId"])
    same(kms.describe_key(KeyId="alias/story-boto3")["KeyMetadata"]["Arn"], one["Arn"])
    return one["KeyId"], two["KeyId"]


def ciphertexts(one, two):
    under_one = kms.encrypt(KeyId="alias/story-boto3", Plaintext=PLAINTEXT, EncryptionContext=SOURCE_CONTEXT)["CiphertextBlob"]
    moved = kms.re_encrypt(
        CiphertextBlob=under_one,
        SourceEncryptionContext=SOURCE_CONTEXT,
        DestinationKeyId=two,
        DestinationEncryptionContext=DESTINATION_CONTEXT,
    )
    under_two = moved["CiphertextBlob"]
    assert moved["SourceKeyId"].endswith(one) and moved["KeyId"].endswith(two), moved
    same(kms.decrypt(CiphertextBlob=under_two, EncryptionContext=DESTINATION_CONTEXT)["Plaintext"], PLAINTEXT)
    same(kms.decrypt(CiphertextBlob=under_one, EncryptionContext=SOURCE_CONTEXT)["Plaintext"], PLAINTEXT)
    refused("InvalidCiphertextException", kms.decrypt, CiphertextBlob=under_two, EncryptionContext=SOURCE_CONTEXT)
    refused("InvalidCiphertextException", kms.decrypt, CiphertextBlob=under_two)
    refused("InvalidCiphertextException", kms.re_encrypt, CiphertextBlob=under_one, DestinationKeyId=two)
    refused("IncorrectKeyException", kms.decrypt, KeyId=one, CiphertextBlob=under_two, EncryptionContext=DESTINATION_CONTEXT)
    return under_one


def data_keys(two):
    data_key = kms.generate_data_key(KeyId=two, KeySpec="AES_256")
    same(len(data_key["Plaintext"]), 32)
    same(kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"], data_key["Plaintext"])
    same(len(kms.generate_random(NumberOfBytes=48)["Plaintext"]), 48)


def lists(one, two):
    ids = [key["KeyId"] for page in kms.get_paginator("list_keys").paginate(Limit=1) for key in page["Keys"]]
    same((ids.count(one), ids.count(two)), (1, 1))
    same([alias["AliasName"] for alias in kms.list_aliases(KeyId=one)["Aliases"]], ["alias/story-boto3"])


def states(one, two, under_one):
    kms.disable_key(KeyId=one)
    refused("DisabledException", kms.encrypt, KeyId=one, Plaintext=PLAINTEXT)
    refused("DisabledException", kms.decrypt, CiphertextBlob=under_one, EncryptionContext=SOURCE_CONTEXT)
    kms.enable_key(KeyId=one)
    same(kms.decrypt(CiphertextBlob=under_one, EncryptionContext=SOURCE_CONTEXT)["Plaintext"], PLAINTEXT)
    kms.update_alias(AliasName="alias/story-boto3", TargetKeyId=two)
    assert kms.describe_key(KeyId="alias/story-boto3")["KeyMetadata"]["KeyId"] == two
    kms.delete_alias(AliasName="alias/story-boto3")
    refused("NotFoundException", kms.describe_key, KeyId="alias/story-boto3")


def main():
    one, two = keys()
    under_one = ciphertexts(one, two)
    data_keys(two)
    lists(one, two)
    states(one, two, under_one)


main()
