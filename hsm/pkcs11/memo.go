package pkcs11

import (
	"context"
	"sync"

	"golang.org/x/sync/singleflight"

	"hsmkms/hsm"
)

// memo remembers what was found out of a token, by name. Its zero value remembers nothing.
type memo[V any] struct {
	known   sync.Map
	finding singleflight.Group
}

// peek gives what is known.
func (m *memo[V]) peek(name string) (V, bool) {
	known, ok := m.known.Load(name)
	if !ok {
		var none V
		return none, false
	}
	return known.(V), true //nolint:forcetypeassert // get stores nothing else
}

// get gives what is known or has it found out: once for all who ask meanwhile, and to the end even if none of them waits for
// it. A failure is not remembered.
func (m *memo[V]) get(ctx context.Context, name string, find func(context.Context) (V, error)) (V, error) {
	var none V
	if err := ctx.Err(); err != nil {
		return none, &hsm.Error{Class: hsm.Busy, Cause: err}
	}
	if known, ok := m.peek(name); ok {
		return known, nil
	}
	found := m.finding.DoChan(name, func() (any, error) {
		if known, ok := m.peek(name); ok {
			return known, nil
		}
		v, err := find(context.WithoutCancel(ctx))
		if err == nil {
			m.known.Store(name, v)
		}
		return v, err
	})
	select {
	case r := <-found:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(V), nil //nolint:forcetypeassert // see above
	case <-ctx.Done():
		return none, &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
	}
}
