package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"hsmkms/kms"
)

const (
	// maxBody is the largest body of a request, in bytes: enough for the largest policy with every character escaped.
	maxBody = 1 << 20
	// smallBody is the size up to which bodies are read without further ado. Requests that move keys and data are smaller.
	smallBody = 16 << 10
	// largeBodies is how many larger bodies may be in memory at a time. They are read before anybody is authenticated, so
	// there must be a bound that does not depend on the number of connections.
	largeBodies = 64
)

// bodies reads the bodies of requests. It is for many goroutines.
type bodies struct{ large chan struct{} }

func newBodies() *bodies { return &bodies{large: make(chan struct{}, largeBodies)} }

// read reads the body of a request into the buffer, within the limit and without leaving copies behind. The caller
// calls release when it is done with the buffer.
func (b *bodies) read(ctx context.Context, r *http.Request, in *bytes.Buffer) (release func(), err error) {
	release = func() {}
	if r.ContentLength > maxBody {
		return release, tooLarge()
	}
	// What is announced costs nothing to announce, so no more than a small body's room is made before it comes.
	first := int64(smallBody)
	if r.ContentLength >= 0 {
		first = min(first, r.ContentLength)
	}
	if err := readUpTo(r.Body, in, int(first)+1); err != nil || in.Len() <= smallBody {
		return release, err
	}
	select {
	case b.large <- struct{}{}:
		release = func() { <-b.large }
	case <-ctx.Done():
		return release, &kms.Error{Type: kms.Throttling, Message: "Rate exceeded", Cause: ctx.Err()}
	}
	if err := readUpTo(r.Body, in, maxBody+1); err != nil {
		return release, err
	}
	if in.Len() > maxBody {
		return release, tooLarge()
	}
	return release, nil
}

// readUpTo reads on until the buffer holds size bytes or the body ends.
func readUpTo(body io.Reader, in *bytes.Buffer, size int) error {
	more := size - in.Len()
	grow(in, more+bytes.MinRead)
	if _, err := in.ReadFrom(io.LimitReader(body, int64(more))); err != nil {
		return &kms.Error{Type: kms.Serialization, Cause: fmt.Errorf("reading body: %w", err)}
	}
	return nil
}

// grow makes room for n more bytes and wipes what it leaves behind.
func grow(b *bytes.Buffer, n int) {
	old := b.Bytes()
	b.Grow(n)
	if now := b.Bytes(); len(old) > 0 && &now[0] != &old[0] {
		clear(old)
	}
}

func tooLarge() error {
	return kms.Errorf(kms.RequestEntityTooLarge, "The request body is larger than %d bytes.", maxBody)
}
