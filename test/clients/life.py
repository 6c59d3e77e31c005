"""The life of a key with boto3: what an operator does over the years. The environment is that of aws.env."""

import json
import os
import subprocess
import tempfile

from support import kms, knows, refused, same

PLAINTEXT = b"attack at dawn"


def state(key):
    return kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"]


def current(key):
    return kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]


def encrypt(key):
    return kms.encrypt(KeyId=key, Plaintext=PLAINTEXT)["CiphertextBlob"]


def opens(ciphertext):
    same(kms.decrypt(CiphertextBlob=ciphertext)["Plaintext"], PLAINTEXT)


def tags(key):
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "team", "TagValue": "b"}, {"TagKey": "stage", "TagValue": "live"}])
    kms.untag_resource(KeyId=key, TagKeys=["stage"])
    same(kms.list_resource_tags(KeyId=key)["Tags"], [{"TagKey": "team", "TagValue": "b"}])
    refused("TagException", kms.tag_resource, KeyId=key, Tags=[{"TagKey": "aws:team", "TagValue": "a"}])


def policy(key):
    """Who may use the key. A policy under which nobody could change it again is refused, and so is one that is none."""
    account = kms.describe_key(KeyId=key)["KeyMetadata"]["AWSAccountId"]
    statement = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "kms:*", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [{"Sid": "Administrators", **statement}]}
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(document))
    same(json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]), document)
    lock_out = {"Version": "2012-10-17", "Statement": [{**statement, "Action": "kms:Decrypt"}]}
    refused("MalformedPolicyDocumentException", kms.put_key_policy, KeyId=key, Policy=json.dumps(lock_out))
    refused("MalformedPolicyDocumentException", kms.put_key_policy, KeyId=key, Policy="{}")
    same(kms.list_key_policies(KeyId=key)["PolicyNames"], ["default"])


def rotation(key):
    """New material in time or on demand. Old ciphertext opens for ever, and ReEncrypt moves it to the current material."""
    first, before = encrypt(key), current(key)
    kms.enable_key_rotation(KeyId=key)
    same(kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"], True)
    kms.disable_key_rotation(KeyId=key)
    same(kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"], False)
    if knows("EnableKeyRotation", "RotationPeriodInDays"):
        kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=180)
        same(kms.get_key_rotation_status(KeyId=key)["RotationPeriodInDays"], 180)
    if knows("RotateKeyOnDemand"):
        kms.rotate_key_on_demand(KeyId=key)
        same([entry["RotationType"] for entry in kms.list_key_rotations(KeyId=key)["Rotations"]], ["ON_DEMAND"])
        opens(first)
    moved = kms.re_encrypt(CiphertextBlob=first, DestinationKeyId=key)
    opens(moved["CiphertextBlob"])
    if knows("ListKeyRotations", "IncludeKeyMaterial"):  # the ids of materials in other answers came with it
        same((moved["SourceKeyMaterialId"], moved["DestinationKeyMaterialId"]), (before, current(key)))
        materials = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
        same([(m["KeyMaterialId"], m["KeyMaterialState"]) for m in materials], [(before, "NON_CURRENT"), (current(key), "CURRENT")])


def oaep(public, material):
    """Encrypts under a wrapping key, which is DER. openssl reads the public key from a file, and the material does not go
    into one."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(public)
        file.flush()
        options = [word for option in ("padding_mode:oaep", "oaep_md:sha256", "mgf1_md:sha256") for word in ("-pkeyopt", "rsa_" + option)]
        command = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", file.name, *options]
        return subprocess.run(command, input=material, stdout=subprocess.PIPE, check=True).stdout


def bring(key, material, **how):
    """Imports material of 32 bytes: a wrapping key of the token encrypts it, and a token says what that is for. Both are
    good for a day."""
    parameters = kms.get_parameters_for_import(KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_3072")
    kms.import_key_material(
        KeyId=key,
        ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=oaep(parameters["PublicKey"], material),
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
        **how,
    )


def imported():
    """A key of your own material. Deleting it makes the key useless at once; the same, and no other, brings it back."""
    material, other = os.urandom(32), os.urandom(32)
    key = kms.create_key(Origin="EXTERNAL", Description="from our own generator")["KeyMetadata"]["KeyId"]
    same(state(key), "PendingImport")
    bring(key, material)
    same(state(key), "Enabled")
    ciphertext = encrypt(key)
    kms.delete_imported_key_material(KeyId=key)
    refused("KMSInvalidStateException", kms.decrypt, CiphertextBlob=ciphertext)
    refused("IncorrectKeyMaterialException", bring, key=key, material=other)
    bring(key, material)
    opens(ciphertext)
    if knows("ImportKeyMaterial", "ImportType"):  # rotation to material that was imported for that
        before = current(key)
        bring(key, other, ImportType="NEW_KEY_MATERIAL", KeyMaterialDescription="for next year")
        same(current(key), before)
        kms.rotate_key_on_demand(KeyId=key)
        assert current(key) != before
        opens(ciphertext)
    return key, ciphertext


def end(key, ciphertext):
    if knows("GetKeyLastUsage"):
        same(kms.get_key_last_usage(KeyId=key)["KeyLastUsage"]["Operation"], "Decrypt")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    same(state(key), "PendingDeletion")
    refused("KMSInvalidStateException", kms.decrypt, CiphertextBlob=ciphertext)
    kms.cancel_key_deletion(KeyId=key)
    same(state(key), "Disabled")
    kms.enable_key(KeyId=key)
    opens(ciphertext)


def main():
    key = kms.create_key(Description="invoices", Tags=[{"TagKey": "team", "TagValue": "a"}])["KeyMetadata"]["KeyId"]
    tags(key)
    policy(key)
    rotation(key)
    end(*imported())
    same(kms.schedule_key_deletion(KeyId=key)["PendingWindowInDays"], 30)


main()
