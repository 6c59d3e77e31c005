package fault

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestGrantsSurviveACrash kills the server while grants are made and revoked. What was acknowledged is in force afterwards: each
// grant lets its holder use its own encryption context, and each that was revoked does not.
func TestGrantsSurviveACrash(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	key, who := s.NewKey(t), s.NewUser(t, "grantee", "")
	client := s.Client()
	context := func(n int) map[string]string { return map[string]string{"n": strconv.Itoa(n)} }
	var mu sync.Mutex
	made, revoked := map[int]bool{}, map[int]bool{} // acknowledged; a revocation that was only tried is in neither
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for n := w; ; n += 4 {
				out, err := client.CreateGrant(t.Context(), &kms.CreateGrantInput{
					KeyId: &key, GranteePrincipal: aws.String(kmstest.IAMARN("user/grantee")), Operations: []types.GrantOperation{types.GrantOperationEncrypt},
					Constraints: &types.GrantConstraints{EncryptionContextEquals: context(n)},
				})
				if err != nil {
					return
				}
				if n%3 != 0 {
					mu.Lock()
					made[n] = true
					mu.Unlock()
					continue
				}
				if _, err := client.RevokeGrant(t.Context(), &kms.RevokeGrantInput{KeyId: &key, GrantId: out.GrantId}); err != nil {
					return
				}
				mu.Lock()
				revoked[n] = true
				mu.Unlock()
			}
		})
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(made) >= 100 && len(revoked) >= 20
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, s.Kill())
	workers.Wait()
	require.NoError(t, s.Run())
	who = s.As(who.Credentials)
	encrypt := func(n int) error {
		_, err := who.KMS.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &key, Plaintext: []byte("x"), EncryptionContext: context(n)})
		return err
	}
	for n := range made {
		require.NoError(t, encrypt(n), n)
	}
	for n := range revoked {
		require.ErrorContains(t, encrypt(n), "AccessDeniedException", n)
	}
}
