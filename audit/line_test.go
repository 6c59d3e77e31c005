package audit

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func someHash(s string) Hash { return sha256.Sum256([]byte(s)) }

func TestLineByteByByte(t *testing.T) {
	text, next := appendLine(nil, []byte(`{"a":1`), []byte(`,"stop":{}`), Position{Sequence: 16, Hash: someHash("x")})
	hashed := `{"a":1,"hsmkms":{"sequence":17,"previous":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","stop":{}`
	require.Equal(t, hashed+`,"hash":"`+someHash(hashed).String()+"\"}}\n", string(text))
	require.Equal(t, Position{Sequence: 17, Hash: someHash(hashed)}, next)
	l, err := parseLine(text[:len(text)-1])
	require.NoError(t, err)
	require.Equal(t, next, l.Position)
	require.Equal(t, someHash("x"), l.previous)
	require.Equal(t, `,"stop":{}`, string(l.mark))
	require.False(t, l.altered())
}

func TestPositionText(t *testing.T) {
	want := Position{Sequence: 17, Hash: someHash("x")}
	got, err := ParsePosition(want.String())
	require.NoError(t, err)
	require.Equal(t, want, got)
	for _, text := range []string{
		"", "17", "17:", ":" + want.Hash.String(), "0:" + want.Hash.String(), "017:" + want.Hash.String(), "+7:" + want.Hash.String(), "17:abc",
		strings.ToUpper(want.String()), want.String() + "0", "17:" + strings.Repeat("g", 64), "18446744073709551616:" + want.Hash.String(),
	} {
		_, err := ParsePosition(text)
		require.Error(t, err, text)
	}
}

func TestPositionInALog(t *testing.T) {
	var out bytes.Buffer
	p := Position{Sequence: 17, Hash: Hash{0xab}}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("", "last", p)
	require.Contains(t, out.String(), `"last":"`+p.String()+`"`)
}

func TestMarksRoundTrip(t *testing.T) {
	for text, m := range map[string]*mark{
		`,"start":{"trail":"t"}`: {Start: &startMark{Trail: "t"}},
		`,"start":{"trail":"t","torn":[{"file":"f","bytes":1,"records":0,"sha256":"s"},{"file":"g","bytes":2,"records":3,"sha256":"u"}]}`: {
			Start: &startMark{Trail: "t", Torn: []tornMark{{File: "f", Bytes: 1, SHA256: "s"}, {File: "g", Bytes: 2, Records: 3, SHA256: "u"}}},
		},
		`,"stop":{}`: {Stop: &stopMark{}},
		`,"lost":{"records":3,"from":"a","to":"b"}`: {Lost: &lostMark{Records: 3, From: "a", To: "b"}},
		`,"checkpoint":{"trail":"t","sequence":7,"hash":"h","time":"n","keyId":"k"},"signature":"AQID"`: {
			Checkpoint: &checkpointMark{Trail: "t", Sequence: 7, Hash: "h", Time: "n", KeyID: "k"}, Signature: []byte{1, 2, 3},
		},
	} {
		require.Equal(t, text, string(m.members()))
		got, err := parseMark([]byte(text))
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	for _, text := range []string{
		",", "x", `,"stop":{} `, `,"stop":{"x":1}`, `,"stop":{},"stop":{}`, `,"stop":null`, `,"Stop":{}`, `,"stop":{},"lost":{"records":1,"from":"a","to":"b"}`,
		`,"start":{"trail":"\u0074"}`, `,"checkpoint":{"trail":"t","sequence":7,"hash":"h","time":"n","keyId":"k"},"signature":"AQIE="`,
		`,"checkpoint":{"trail":"t","sequence":7,"hash":"h","time":"n","keyId":"k"},"signature":"AQJ="`, `,"other":1`, `;"stop":{}`,
	} {
		m, err := parseMark([]byte(text))
		require.Error(t, err, "%s %v", text, m)
	}
	m, err := parseMark(nil)
	require.NoError(t, err)
	require.Nil(t, m)
}

// FuzzParseLine holds the parser to its contract: what it accepts is what appendLine writes.
func FuzzParseLine(f *testing.F) {
	for _, mark := range []string{"", `,"stop":{}`, `,"start":{"trail":"t"}`, `,"checkpoint":{"trail":"t","sequence":7,"hash":"h","time":"n","keyId":"k"},"signature":"AQID"`} {
		text, _ := appendLine(nil, []byte(`{"a":"`+placeOpen+`"`), []byte(mark), Position{Sequence: 41, Hash: someHash("x")})
		f.Add(text[:len(text)-1])
		f.Add(text[3 : len(text)-7])
	}
	f.Add([]byte(`{"a":1}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLine(text)
		if err != nil {
			return
		}
		body := text[:strings.LastIndex(string(text), placeOpen)]
		again, next := appendLine(nil, body, l.mark, Position{Sequence: l.Sequence - 1, Hash: l.previous})
		require.Equal(t, l.computed, next.Hash)
		if !l.altered() {
			require.Equal(t, string(text)+"\n", string(again))
		}
		if m, err := parseMark(l.mark); err == nil && m != nil {
			require.Equal(t, string(l.mark), string(m.members()))
		}
	})
}
