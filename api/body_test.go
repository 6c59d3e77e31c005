package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// request makes a request with a body that comes in pieces, with or without its length.
func request(body []byte, announced int64) *http.Request {
	return &http.Request{Body: io.NopCloser(iotest.HalfReader(bytes.NewReader(body))), ContentLength: announced}
}

func TestReadBody(t *testing.T) {
	for _, size := range []int{0, 1, 4096, smallBody - 1, smallBody, smallBody + 1, 100_000, maxBody - 1, maxBody} {
		for _, announced := range []int64{int64(size), -1} {
			b := newBodies()
			body := bytes.Repeat([]byte("x"), size)
			in := getBuffer()
			release, err := b.read(t.Context(), request(body, announced), in)
			require.NoError(t, err, "%d bytes", size)
			require.True(t, bytes.Equal(body, in.Bytes()))
			require.Equal(t, size > smallBody, len(b.large) == 1)
			release()
			require.Empty(t, b.large)
			putBuffer(in)
		}
	}
}

func TestReadBodyRefuses(t *testing.T) {
	b := newBodies()
	for _, r := range []*http.Request{
		request(nil, maxBody+1),
		request(make([]byte, maxBody+1), -1),
		request(make([]byte, 3*maxBody), -1),
	} {
		release, err := b.read(t.Context(), r, getBuffer())
		release()
		require.Equal(t, kms.RequestEntityTooLarge, kms.TypeOf(err))
		require.Empty(t, b.large)
	}
	broken := &http.Request{Body: io.NopCloser(iotest.ErrReader(errors.New("the line is cut"))), ContentLength: 3}
	_, err := b.read(t.Context(), broken, getBuffer())
	require.Equal(t, kms.Serialization, kms.TypeOf(err))
}

// TestAnnouncedBodyCostsLittle guards against room for a body that never comes.
func TestAnnouncedBodyCostsLittle(t *testing.T) {
	in := getBuffer()
	release, err := newBodies().read(t.Context(), request([]byte("{}"), maxBody), in)
	require.NoError(t, err)
	release()
	require.Less(t, in.Cap(), 4*smallBody)
}

// TestLargeBodiesAreFew fills all places: the next one waits until its time is up, a small one does not.
func TestLargeBodiesAreFew(t *testing.T) {
	b := newBodies()
	for range largeBodies {
		b.large <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	release, err := b.read(ctx, request(make([]byte, smallBody+1), -1), getBuffer())
	release()
	require.Equal(t, kms.Throttling, kms.TypeOf(err))
	require.Len(t, b.large, largeBodies)
	_, err = b.read(ctx, request([]byte("{}"), -1), getBuffer())
	require.NoError(t, err)
}

// TestGrowWipes looks at the memory that a growing buffer leaves behind.
func TestGrowWipes(t *testing.T) {
	b := bytes.NewBuffer(make([]byte, 0, 64))
	b.WriteString("a plaintext")
	old := b.Bytes()
	grow(b, 10)
	require.Equal(t, "a plaintext", string(old), "there was room")
	grow(b, 1000)
	require.Equal(t, make([]byte, len(old)), old)
	require.Equal(t, "a plaintext", b.String())
}
