package fault

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/middleware"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// reads are the operations that change nothing but counts of the use of keys, which have tests of their own. Every other
// one must be a step of the workers of TestKillNine.
var reads = []string{
	"Decrypt", "DeriveSharedSecret", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair",
	"GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext", "GenerateMac", "GenerateRandom", "GetKeyLastUsage",
	"GetKeyPolicy", "GetKeyRotationStatus", "GetPublicKey", "ListAliases", "ListGrants", "ListKeyPolicies", "ListKeyRotations", "ListKeys",
	"ListResourceTags", "ListRetirableGrants", "ReEncrypt", "Sign", "Verify", "VerifyMac",
}

// TestStepsAreComplete holds the steps of the workers against what the server serves: an operation that is added is a step,
// or is named as one that writes nothing.
func TestStepsAreComplete(t *testing.T) {
	want := slices.Clone(reads)
	for _, s := range steps {
		require.Positive(t, s.weight, s.operation)
		want = append(want, s.operation)
	}
	slices.Sort(want)
	require.Equal(t, want, servedOperations(t, kmstest.Start(t, kmstest.Options{})))
}

// servedOperations asks the server for every operation of the published model.
func servedOperations(t *testing.T, s *kmstest.Server) (served []string) {
	t.Helper()
	root, err := kmstest.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "api", "model", "kms-2014-11-01.json"))
	require.NoError(t, err)
	var model struct{ Operations map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal(text, &model))
	for _, operation := range slices.Sorted(maps.Keys(model.Operations)) {
		if !strings.Contains(s.Post(t, operation, "[]").Body, "The operation "+operation+" is not supported.") {
			served = append(served, operation)
		}
	}
	return served
}

// acknowledgements counts what the server acknowledged, by operation.
type acknowledgements struct {
	mu     sync.Mutex
	counts map[string]int
}

// client gives the client with its answers counted.
func (a *acknowledgements) client(client *kms.Client) *kms.Client {
	count := func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, data, err := next.HandleInitialize(ctx, in)
		if err == nil {
			a.add(middleware.GetOperationName(ctx))
		}
		return out, data, err
	}
	return kms.New(client.Options(), func(o *kms.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("acknowledgements", count), middleware.After)
		})
	})
}

func (a *acknowledgements) add(operation string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts == nil {
		a.counts = map[string]int{}
	}
	a.counts[operation]++
}
