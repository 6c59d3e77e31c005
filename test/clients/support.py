"""What the stories with boto3 share. The environment is that of aws.env."""

import json
import os

import boto3

kms = boto3.client("kms", endpoint_url=os.environ["AWS_ENDPOINT_URL_KMS"])


def refused(name, operation, **arguments):
    """Calls an operation that must fail with an exception of the client."""
    try:
        operation(**arguments)
    except getattr(kms.exceptions, name):
        return
    raise AssertionError(f"{operation.__name__} did not fail with {name}")


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def model():
    """The published model, which the server has too."""
    with open(os.path.join(os.path.dirname(__file__), "../../api/model/kms-2014-11-01.json"), encoding="utf-8") as file:
        return json.load(file)


def knows(operation, member=None):
    """Tells whether this boto3 has an operation with a member in its request. If not, it says what is skipped. The
    published model must have both, so that nothing is skipped because it is misspelled here."""
    published = model()
    request = published["operations"][operation]["input"]["shape"]
    assert member is None or member in published["shapes"][request]["members"], member
    client = kms.meta.service_model
    if operation in client.operation_names and (member is None or member in client.operation_model(operation).input_shape.members):
        return True
    print(f"skipped: boto3 {boto3.__version__} does not know {operation}", member or "")
    return False
