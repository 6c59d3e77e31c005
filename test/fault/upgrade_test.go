package fault

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/store"
	"hsmkms/store/bolt"
	"hsmkms/test/kmstest"
)

// unbind makes a store what versions that did not bind principals left: the records of keys and roles lack the bindings.
func unbind(t *testing.T, s *kmstest.Server) {
	t.Helper()
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(s.Dir, "hsmkms.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	unbound := 0
	require.NoError(t, file.Update(t.Context(), func(txn store.Txn) error {
		changed := map[string][]byte{}
		for prefix, member := range map[string]string{"key/": "principals", "iam/entity/": "trusted"} {
			err := txn.Scan(prefix, "", func(key string, value []byte) bool {
				record := map[string]any{}
				require.NoError(t, json.Unmarshal(value, &record))
				if _, bound := record[member]; bound {
					unbound++
				}
				delete(record, member)
				changed[key], err = json.Marshal(record)
				require.NoError(t, err)
				return true
			})
			require.NoError(t, err)
		}
		for key, value := range changed {
			require.NoError(t, txn.Put(key, value))
		}
		require.NoError(t, txn.Delete("system/principals-bound"))
		return txn.Delete("iam/trust-bound")
	}))
	require.Equal(t, 2, unbound)
}

// TestStoreWithoutBindings starts a server on the store of an earlier version, stops it, and starts it again.
func TestStoreWithoutBindings(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	name, arn := "alice", kmstest.IAMARN("user/alice")
	alice := s.NewUser(t, name, "").Credentials
	trust := kmstest.Statement("Allow", arn, "sts:AssumeRole", "")
	_, err := s.Root().IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	require.NoError(t, err)
	policy := `{"Statement":[{"Effect":"Allow","Principal":{"AWS":["` + kmstest.Account + `","` + arn + `"]},"Action":"kms:*","Resource":"*"}]}`
	made, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{Policy: &policy})
	require.NoError(t, err)
	uses := func() {
		t.Helper()
		_, err := s.As(alice).KMS.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: made.KeyMetadata.KeyId})
		require.NoError(t, err)
		_, err = s.As(alice).STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(kmstest.IAMARN("role/" + name)), RoleSessionName: &name})
		require.NoError(t, err)
		got, err := s.Client().GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: made.KeyMetadata.KeyId})
		require.NoError(t, err)
		require.Equal(t, policy, *got.Policy)
	}
	uses()
	for range 2 {
		require.NoError(t, s.Stop())
		unbind(t, s)
		require.NoError(t, s.Run())
		uses()
	}
	require.NoError(t, s.Stop())
	require.NoError(t, s.Run())
	uses()

	keys, err := s.Root().IAM.ListAccessKeys(t.Context(), &iam.ListAccessKeysInput{UserName: &name})
	require.NoError(t, err)
	_, err = s.Root().IAM.DeleteAccessKey(t.Context(), &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: keys.AccessKeyMetadata[0].AccessKeyId})
	require.NoError(t, err)
	_, err = s.Root().IAM.DeleteUser(t.Context(), &iam.DeleteUserInput{UserName: &name})
	require.NoError(t, err)
	other := s.NewUser(t, name, "")
	_, err = other.KMS.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: made.KeyMetadata.KeyId})
	require.ErrorContains(t, err, "AccessDeniedException")
	got, err := s.Client().GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: made.KeyMetadata.KeyId})
	require.NoError(t, err)
	require.Regexp(t, `^AIDA[A-Z2-7]{17}$`, strings.Split(*got.Policy, `"`)[13])
}
