package pkcs11

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

func TestMeasure(t *testing.T) {
	r := newRig(t, options{})
	kept := r.generate(hsm.KeyRequest{Kind: hsm.AES256, Label: "bench/of somebody else"})
	all, err := r.token.Measure(t.Context(), 5*time.Millisecond, 3)
	require.NoError(t, err)
	var names []string
	for _, m := range all {
		names = append(names, m.Operation)
		require.Equal(t, 3, m.Workers)
		require.GreaterOrEqual(t, m.Operations, 3, m.Operation)
		require.Positive(t, m.PerSecond, m.Operation)
		require.Positive(t, m.P50, m.Operation)
		require.GreaterOrEqual(t, m.P99, m.P50, m.Operation)
	}
	require.Equal(t, []string{"Encrypt", "Decrypt", "ReEncrypt", "Random"}, names)
	require.Equal(t, []hsm.Object{{ID: kept.ID, Label: "bench/of somebody else"}}, r.objects())
}

func TestMeasureRefusesNonsense(t *testing.T) {
	r := newRig(t, options{})
	for _, test := range []struct {
		d       time.Duration
		workers int
	}{{0, 1}, {-time.Second, 1}, {time.Second, 0}, {time.Second, -1}} {
		_, err := r.token.Measure(t.Context(), test.d, test.workers)
		require.ErrorContains(t, err, "measuring needs")
	}
	require.Zero(t, r.seen.total("C_GenerateKey"))
}

// TestMeasureLeavesNothing has every step fail.
func TestMeasureLeavesNothing(t *testing.T) {
	tests := map[string]struct {
		rules []string
		class hsm.Class
	}{
		"no key":                    {[]string{"C_GenerateKey rv=0x31"}, hsm.TokenFull},
		"made, but told otherwise":  {[]string{"C_GenerateKey rv=0x5 when=after count=1"}, hsm.Failed},
		"a key that does not work":  {[]string{"C_Encrypt rv=0x70"}, hsm.Unsupported},
		"a failure on the way":      {[]string{"C_Encrypt rv=0x70 skip=3 count=1"}, hsm.Unsupported},
		"at the last operation":     {[]string{"C_GenerateRandom rv=0x5 count=1"}, hsm.Failed},
		"the token lost for a time": {[]string{"C_Decrypt rv=0x30 skip=2 count=2", "C_GenerateRandom rv=0x30 count=1"}, hsm.TokenGone},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{})
			r.fault.Set(test.rules...)
			all, err := r.token.Measure(t.Context(), 20*time.Millisecond, 2)
			require.Nil(t, all)
			require.Equal(t, test.class, hsm.ClassOf(err), "%v", err)
			r.fault.Clear()
			r.healed()
			require.Empty(t, r.objects())
			require.Empty(t, r.allObjects())
		})
	}
}

// TestMeasureNamesWhatItLeaves has a key that cannot be destroyed.
func TestMeasureNamesWhatItLeaves(t *testing.T) {
	r := newRig(t, options{})
	r.fault.Set("C_DestroyObject rv=0x1b")
	_, err := r.token.Measure(t.Context(), time.Millisecond, 1)
	left := r.objects()
	require.Len(t, left, 1)
	require.ErrorContains(t, err, left[0].Label)
}

func TestMeasureCancelled(t *testing.T) {
	r := newRig(t, options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.token.Measure(ctx, time.Second, 2)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, r.seen.total("C_GenerateKey"))

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = r.token.Measure(ctx, time.Hour, 2)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, r.objects())
}

func TestHistogram(t *testing.T) {
	for d := time.Duration(0); d < 5000; d++ {
		limit := limitOf(bucketOf(d))
		require.LessOrEqual(t, d, limit)
		require.LessOrEqual(t, limit-d, d/16)
	}
	for _, d := range []time.Duration{time.Microsecond, time.Second, time.Hour, math.MaxInt64} {
		require.GreaterOrEqual(t, limitOf(bucketOf(d)), d)
	}
	require.Zero(t, bucketOf(-1))

	var a, b histogram
	for i := range 98 {
		a.record(time.Duration(i % 10))
	}
	b.record(time.Second)
	b.record(time.Minute)
	a.add(&b)
	require.Equal(t, 100, a.count)
	require.Equal(t, time.Duration(5), a.quantile(0.50))
	require.Equal(t, limitOf(bucketOf(time.Minute)), a.quantile(0.99))
	require.Equal(t, limitOf(bucketOf(time.Second)), a.quantile(0.98))
}

func TestMeasurementJSON(t *testing.T) {
	text, err := json.Marshal(Measurement{"Encrypt", 2, 100, 1.5, time.Microsecond, time.Millisecond})
	require.NoError(t, err)
	require.JSONEq(t, `{"operation": "Encrypt", "workers": 2, "operations": 100, "perSecond": 1.5,
		"p50Nanoseconds": 1000, "p99Nanoseconds": 1000000}`, string(text))
}
