package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestMalformedPoliciesOfIAM offers policies that IAM refuses to every operation that takes one, and hears IAM's words.
func TestMalformedPoliciesOfIAM(t *testing.T) {
	s, ctx := one(), t.Context()
	client, name := s.Root().IAM, aws.String("malformed")
	s.NewUser(t, *name, "")
	assumer := s.NewUser(t, "malformed-assumer", "")
	arn := newRole(t, s, *name, trusting(kmstest.IAMARN("user/malformed-assumer")), "")
	good := kmstest.Statement("Allow", "", "kms:*", "*")
	made, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: name, PolicyDocument: &good})
	require.NoError(t, err)
	put := map[string]func(document string) error{
		"CreatePolicy": func(document string) error {
			_, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("malformed-too"), PolicyDocument: &document})
			return err
		},
		"CreatePolicyVersion": func(document string) error {
			_, err := client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: made.Policy.Arn, PolicyDocument: &document})
			return err
		},
		"PutUserPolicy": func(document string) error {
			_, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: name, PolicyName: name, PolicyDocument: &document})
			return err
		},
		"PutRolePolicy": func(document string) error {
			_, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: name, PolicyDocument: &document})
			return err
		},
		"AssumeRole": func(document string) error {
			_, err := assumer.STS.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: name, Policy: &document})
			return err
		},
	}
	for document, want := range map[string]string{
		`{`: "Syntax errors in policy.",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*","Strange":1}]}`: "Syntax errors in policy.",
		kmstest.Statement("Allow", "", "Encrypt", "*"):                                                          "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
		kmstest.Statement("Allow", "", "kms:*", "key/1"):                                                        `Resource key/1 must be in ARN format or "*".`,
		kmstest.Statement("Allow", "", "kms:*", "arn:aws:kms::key"):                                             "The policy failed legacy parsing",
		kmstest.Statement("Allow", "", "kms:*", "arn:asw:kms:us-east-1:*:key/<>"):                               `Partition "asw" is not valid for resource "arn:asw:kms:us-east-1:*:key/<>".`,
		kmstest.Statement("Allow", "*", "kms:*", "*"):                                                           "Policy document should not specify a principal.",
	} {
		for operation := range put {
			kmstest.RequireError(t, put[operation](document), "MalformedPolicyDocument", want)
		}
	}

	// Managed policies are in the newer version of the language.
	for _, version := range []string{``, `"Version":"2008-10-17",`} {
		document := `{` + version + `"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:*"}]}`
		for operation := range put {
			if err := put[operation](document); operation == "CreatePolicy" || operation == "CreatePolicyVersion" {
				kmstest.RequireError(t, err, "MalformedPolicyDocument", "Policy document must be version 2012-10-17 or greater.")
			} else {
				require.NoError(t, err, operation)
			}
		}
	}
	_, err = client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("malformed-too"), AssumeRolePolicyDocument: aws.String("{")})
	kmstest.RequireError(t, err, "MalformedPolicyDocument", "This policy contains invalid Json")
}

// TestIncompleteARN allows a user keys by an ARN that ends early.
func TestIncompleteARN(t *testing.T) {
	s := one()
	who, key := s.NewUser(t, "incomplete", ""), s.NewKey(t)
	requireCode(t, s.PostAs(t, who, "DescribeKey", object(t, "KeyId", key)), denied)
	_, err := s.Root().IAM.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{
		UserName: aws.String("incomplete"), PolicyName: aws.String("p"), PolicyDocument: aws.String(kmstest.Statement("Allow", "", "kms:DescribeKey", "arn:aws:kms")), // which no key has as it is
	})
	require.NoError(t, err)
	requireCode(t, s.PostAs(t, who, "DescribeKey", object(t, "KeyId", key)), "")
}
