package contract

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// together runs f n times at once and joins the errors.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { errs[i] = f(i) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// codeOf gives the AWS error type of err, "" for nil.
func codeOf(err error) string {
	var failure smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &failure):
		return failure.ErrorCode()
	}
	return err.Error()
}

// party is one of the clients of a test, with what the server acknowledged to it.
type party struct {
	client *kms.Client
	shared string // a key that all parties use
	keys   []string
	alias  string
	target string // of the alias
}

// begin makes two keys and an alias.
func (p *party) begin(ctx context.Context) error {
	for range 2 {
		out, err := p.client.CreateKey(ctx, &kms.CreateKeyInput{})
		if err != nil {
			return err
		}
		p.keys = append(p.keys, *out.KeyMetadata.KeyId)
	}
	p.alias, p.target = freeAlias(), p.keys[0]
	_, err := p.client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &p.alias, TargetKeyId: &p.target})
	return err
}

// work has one turn: everything with the alias, while its key is switched off and on, and the alias moved.
func (p *party) work(ctx context.Context, turn int) error {
	text := fmt.Sprint(p.alias, turn)
	blob, err := p.encrypt(ctx, text)
	if err != nil {
		return err
	}
	if blob, err = p.move(ctx, blob); err != nil {
		return err
	}
	opened, err := p.client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	if err == nil && string(opened.Plaintext) != text {
		err = fmt.Errorf("decrypted to %q instead of %q", opened.Plaintext, text)
	}
	if err != nil {
		return err
	}
	if err := p.toggle(ctx); err != nil {
		return err
	}
	next := p.keys[turn%2]
	if _, err := p.client.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &p.alias, TargetKeyId: &next}); err != nil {
		return err
	}
	p.target = next
	return nil
}

// encrypt encrypts under the alias and checks that it is the right key that did it.
func (p *party) encrypt(ctx context.Context, text string) ([]byte, error) {
	out, err := p.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &p.alias, Plaintext: []byte(text)})
	if err == nil && *out.KeyId != kmstest.KeyARN(p.target) {
		err = fmt.Errorf("%s is %s, acknowledged was %s", p.alias, *out.KeyId, p.target)
	}
	if err != nil {
		return nil, err
	}
	return out.CiphertextBlob, nil
}

// move re-encrypts to the shared key and back.
func (p *party) move(ctx context.Context, blob []byte) ([]byte, error) {
	for _, to := range []string{p.shared, p.alias} {
		out, err := p.client.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: &to})
		if err != nil {
			return nil, err
		}
		blob = out.CiphertextBlob
	}
	return blob, nil
}

// toggle disables the key, which must be in force for the next request, and enables it again.
func (p *party) toggle(ctx context.Context) error {
	if _, err := p.client.DisableKey(ctx, &kms.DisableKeyInput{KeyId: &p.target}); err != nil {
		return err
	}
	if _, err := p.encrypt(ctx, "x"); codeOf(err) != "DisabledException" {
		return fmt.Errorf("encrypting under a disabled key: %w", err)
	}
	_, err := p.client.EnableKey(ctx, &kms.EnableKeyInput{KeyId: &p.target})
	return err
}

// requireOutcomes checks that all requests so far ended in one of the ways that are named.
func requireOutcomes(t *testing.T, s *kmstest.Server, codes ...string) {
	t.Helper()
	for name := range metrics(t, s) {
		if labels, found := strings.CutPrefix(name, `hsmkms_requests_total{code="`); found {
			code, _, _ := strings.Cut(labels, `"`)
			require.Contains(t, append(codes, ""), code, name)
		}
	}
}

// TestConcurrentClients has 16 clients do everything at once. What was acknowledged to each of them is so, and in the end
// the lists hold exactly that.
func TestConcurrentClients(t *testing.T) {
	const clients, turns = 16, 6
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		shared := s.NewKey(t)
		parties := make([]*party, clients)
		require.NoError(t, together(clients, func(i int) error {
			p := &party{client: s.Client(), shared: shared}
			parties[i] = p
			if err := p.begin(t.Context()); err != nil {
				return err
			}
			for turn := range turns {
				if err := p.work(t.Context(), turn); err != nil {
					return err
				}
			}
			return nil
		}))
		keys, aliases := []string{shared}, map[string]string{}
		for _, p := range parties {
			keys = append(keys, p.keys...)
			aliases[p.alias] = p.target
			require.Equal(t, []string{p.alias}, aliasesOf(t, s, p.target))
		}
		require.Len(t, keys, 2*clients+1)
		require.ElementsMatch(t, keys, allKeys(t, s, 7))
		require.Equal(t, slices.Sorted(maps.Keys(aliases)), allAliases(t, s, "", 5))
		requireOutcomes(t, s, "DisabledException")
		// And so it stays.
		require.NoError(t, s.Stop())
		require.NoError(t, s.Run())
		require.ElementsMatch(t, keys, allKeys(t, s, 1000))
		for alias, target := range aliases {
			require.Equal(t, kmstest.KeyARN(target), keyOf(t, s, alias))
		}
	})
}

// TestConcurrentAliases has 16 clients fight for aliases.
func TestConcurrentAliases(t *testing.T) {
	const clients = 16
	each(t, func(t *testing.T, s *kmstest.Server) {
		keys := make([]string, clients)
		for i := range keys {
			keys[i] = s.NewKey(t)
		}
		client, name := s.Client(), freeAlias()
		// outcomes runs f for all clients and counts how it ended.
		outcomes := func(f func(i int) error) map[string]int {
			codes := make([]string, clients)
			require.NoError(t, together(clients, func(i int) error { codes[i] = codeOf(f(i)); return nil }))
			counts := map[string]int{}
			for _, code := range codes {
				counts[code]++
			}
			return counts
		}
		create := func(name, key string) error {
			_, err := client.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &key})
			return err
		}
		// requireOneTarget checks that exactly one key has the alias, and that it is the one that the alias leads to.
		requireOneTarget := func() {
			var having []string
			for _, key := range keys {
				if slices.Contains(aliasesOf(t, s, key), name) {
					having = append(having, kmstest.KeyARN(key))
				}
			}
			require.Equal(t, []string{keyOf(t, s, name)}, having)
		}
		require.Equal(t, map[string]int{"": 1, "AlreadyExistsException": clients - 1}, outcomes(func(i int) error { return create(name, keys[i]) }))
		requireOneTarget()
		require.Equal(t, map[string]int{"": clients}, outcomes(func(i int) error {
			_, err := client.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &keys[i]})
			return err
		}))
		requireOneTarget()
		remove := func(int) error {
			_, err := client.DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: &name})
			return err
		}
		require.Equal(t, map[string]int{"": 1, "NotFoundException": clients - 1}, outcomes(remove))
		for _, key := range keys {
			require.Empty(t, aliasesOf(t, s, key))
		}
		require.Equal(t, map[string]int{"": 12, "LimitExceededException": 4}, quota(t, s, keys[0], outcomes, create))
	})
}

// quota has all clients give a key an alias when it has room for twelve.
func quota(t *testing.T, s *kmstest.Server, key string, outcomes func(func(int) error) map[string]int, create func(name, key string) error) map[string]int {
	t.Helper()
	for range 38 {
		newAlias(t, s, key)
	}
	counts := outcomes(func(int) error { return create(freeAlias(), key) })
	require.Len(t, aliasesOf(t, s, key), 50)
	return counts
}

// TestConcurrentToggling has 16 clients switch one key off and on while they use it: each request sees one state or the
// other, and what DescribeKey shows in the end is what holds.
func TestConcurrentToggling(t *testing.T) {
	const clients, turns = 16, 10
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, client := s.NewKey(t), s.Client()
		blob := s.Encrypt(t, id, []byte("x"), nil)
		require.NoError(t, together(clients, func(i int) error {
			for turn := range turns {
				var err error
				switch (i + turn) % 4 {
				case 0:
					_, err = client.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &id})
				case 1:
					_, err = client.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &id})
				case 2:
					_, err = client.UpdateKeyDescription(t.Context(), &kms.UpdateKeyDescriptionInput{KeyId: &id, Description: aws.String(fmt.Sprint(i))})
				case 3:
					if _, err = client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob}); codeOf(err) == "DisabledException" {
						err = nil
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
		enabled, _ := keyState(t, s, id)
		_, err := client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
		require.Equal(t, map[bool]string{true: "", false: "DisabledException"}[enabled], codeOf(err))
		metadata := accept(t, s, "DescribeKey", object(t, "KeyId", id))["KeyMetadata"].(members)
		require.Regexp(t, "^[0-9]+$", metadata["Description"], "no change of the description was lost to a change of the state")
	})
}
