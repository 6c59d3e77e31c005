package bolt

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

func TestWatchLags(t *testing.T) {
	const buffer = 4
	s := openTest(t, Config{WatchBuffer: buffer})
	for behind := range 2 * buffer {
		var told []string
		ready := func() { put(t, s, "k", "first") }
		err := s.Watch(t.Context(), "k", ready, func(changes []store.Change) error {
			if len(told) == 0 {
				for i := range behind {
					put(t, s, "k", fmt.Sprint(i))
					put(t, s, "other", "takes no place in the buffer")
				}
			}
			told = append(told, string(changes[0].Value))
			if len(told) == behind+1 {
				return errWanted
			}
			return nil
		})
		if behind <= buffer {
			require.ErrorIs(t, err, errWanted, "%d behind", behind)
		} else {
			require.ErrorIs(t, err, store.ErrLagged, "%d behind", behind)
			require.Len(t, told, 1+buffer)
		}
		require.Empty(t, s.hub.watchers)
	}
}

func TestWithPrefix(t *testing.T) {
	var changes []store.Change
	for _, key := range []string{"a", "b", "b/", "b/1", "b/2", "b0", "c", "\xff"} {
		changes = append(changes, store.Change{Key: key})
	}
	cases := []struct {
		prefix      string
		first, last int // indices in changes; last is exclusive
	}{
		{"", 0, 8}, {"a", 0, 1}, {"b", 1, 6}, {"b/", 2, 5}, {"b/1", 3, 4}, {"b/3", 0, 0}, {"\xff", 7, 8}, {"\xff\xff", 0, 0}, {"0", 0, 0},
	}
	for _, c := range cases {
		require.Equal(t, append([]store.Change{}, changes[c.first:c.last]...),
			append([]store.Change{}, withPrefix(changes, c.prefix)...), "prefix %q", c.prefix)
	}
}
