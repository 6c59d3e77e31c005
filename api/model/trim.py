#!/usr/bin/env python3
"""Makes iam-2010-05-08.json and sts-2011-06-15.json of the models that AWS publishes with botocore: the operations that are
served and the shapes they need, without prose and examples. To serve another operation, add it here and run the script."""

import gzip
import json
import pathlib

import botocore

SERVED = {
    "iam/2010-05-08": """
        AttachRolePolicy AttachUserPolicy CreateAccessKey CreatePolicy CreatePolicyVersion CreateRole CreateUser
        DeleteAccessKey DeleteLoginProfile DeletePolicy DeletePolicyVersion DeleteRole DeleteRolePermissionsBoundary
        DeleteRolePolicy DeleteUser DeleteUserPermissionsBoundary DeleteUserPolicy DetachRolePolicy DetachUserPolicy
        GetAccessKeyLastUsed GetLoginProfile GetPolicy GetPolicyVersion GetRole GetRolePolicy GetUser GetUserPolicy
        ListAccessKeys ListAttachedRolePolicies ListAttachedUserPolicies ListEntitiesForPolicy ListGroupsForUser
        ListInstanceProfilesForRole ListMFADevices ListPolicies ListPolicyTags ListPolicyVersions ListRolePolicies
        ListRoleTags ListRoles ListSSHPublicKeys ListServiceSpecificCredentials ListSigningCertificates ListUserPolicies
        ListUserTags ListUsers ListVirtualMFADevices PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary
        PutUserPolicy SetDefaultPolicyVersion TagPolicy TagRole TagUser UntagPolicy UntagRole UntagUser UpdateAccessKey
        UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription UpdateUser""",
    "sts/2011-06-15": "AssumeRole GetCallerIdentity GetSessionToken",
}


def without_prose(value):
    if isinstance(value, dict):
        return {k: without_prose(v) for k, v in value.items() if not (k == "documentation" and isinstance(v, str))}
    if isinstance(value, list):
        return [without_prose(v) for v in value]
    return value


def references(value):
    """Gives the names of the shapes that a part of the model refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for v in value.values():
            yield from references(v)
    elif isinstance(value, list):
        for v in value:
            yield from references(v)


def trim(model, operations):
    model = without_prose(model)
    kept = {name: model["operations"][name] for name in sorted(operations)}
    shapes, found = {}, list(references(kept))
    while found:
        name = found.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            found += references(shapes[name])
    return {
        "version": model["version"],
        "metadata": model["metadata"],
        "operations": kept,
        "shapes": {name: shapes[name] for name in sorted(shapes)},
    }


def main():
    data = pathlib.Path(botocore.__file__).parent / "data"
    here = pathlib.Path(__file__).parent
    for service, operations in SERVED.items():
        with gzip.open(data / service / "service-2.json.gz") as file:
            trimmed = trim(json.load(file), operations.split())
        (here / (service.replace("/", "-") + ".json")).write_text(json.dumps(trimmed, indent=1) + "\n")


if __name__ == "__main__":
    main()
