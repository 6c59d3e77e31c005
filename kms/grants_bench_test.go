package kms

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store/bolt"
)

// BenchmarkGrants is the cost of an Encrypt that only a grant allows, without the token, beside how many grants there are: of one
// key to as many principals, to one principal, to one principal with a context for each, and while they come and go.
func BenchmarkGrants(b *testing.B) {
	same := func(int) string { return "u" }
	each := func(n int) string { return "u" + strconv.Itoa(n) }
	for name, world := range map[string]struct {
		grants      int
		grantee     func(n int) string
		constrained bool
	}{
		"1 grant":                                  {1, same, false},
		"50000 grants to 50000 principals":         {maxGrants, each, false},
		"50000 grants to one principal":            {maxGrants, same, false},
		"50000 grants to one principal, contexts":  {maxGrants, same, true},
		"1 grant to one principal, with a context": {1, same, true},
	} {
		b.Run(name, func(b *testing.B) { benchmarkGrants(b, world.grants, world.grantee, world.constrained) })
	}
}

func benchmarkGrants(b *testing.B, grants int, grantee func(int) string, constrained bool) {
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(b.TempDir(), "store.db")})
	require.NoError(b, err)
	defer func() { require.NoError(b, st.Close()) }()
	token := fakeToken{encrypt: func(plaintext []byte) (hsm.Sealed, error) {
		return hsm.Sealed{Data: append(plaintext, make([]byte, hsm.TagSize)...)}, nil
	}}
	s, err := New(Config{Store: st, Regions: map[string]Region{testRegion: {Token: token}}})
	require.NoError(b, err)
	defer s.Close()
	grant := func(n int) *Grant {
		g := &Grant{Region: testRegion, Key: firstKey, Account: testAccount, Terms: policy.Grant{
			ID: fmt.Sprintf("%064x", n), IssuingAccount: testAccount, Operations: []string{"Encrypt", "Decrypt"},
			GranteePrincipal: "arn:aws:iam::" + testAccount + ":user/" + grantee(n), GranteeID: "AIDA" + grantee(n),
		}}
		if constrained {
			g.Terms.EncryptionContextSubset = map[string]string{"volume": strconv.Itoa(n)}
		}
		return g
	}
	for n := 0; n < grants; n += 16 {
		require.NoError(b, s.update(b.Context(), func(t *recorder) error {
			if n == 0 {
				if err := t.putKey(newTestKey(firstKey)); err != nil {
					return err
				}
			}
			for i := n; i < min(n+16, grants); i++ {
				if err := t.putGrant(grant(i)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	r := newRequest("Encrypt")
	last := grant(grants - 1).Terms
	r.Caller = &policy.Caller{Principal: policy.Principal{Type: policy.IAMUser, Account: testAccount, ARN: last.GranteePrincipal, UserID: last.GranteeID}}
	encrypt := func() error {
		r.Keys = nil
		_, err := s.Encrypt(b.Context(), r, &EncryptInput{
			KeyId: firstKey, Plaintext: make([]byte, 16), EncryptionContext: map[string]string{"volume": strconv.Itoa(grants - 1), "host": "x"},
		})
		return err
	}
	b.Run("steady", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := encrypt(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("just changed", func(b *testing.B) { // as after each CreateGrant or RevokeGrant for the principal
		b.ReportAllocs()
		for b.Loop() {
			s.shapes.Forget(grant(grants - 1).indexEntries()...)
			s.grants.Forget(grant(grants - 1).indexEntries()...)
			if err := encrypt(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
