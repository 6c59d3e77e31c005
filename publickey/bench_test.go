package publickey

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkVerify(b *testing.B) {
	for _, spec := range specs {
		for _, name := range SigningOf(spec) {
			p := pair(spec)
			a, _ := Signing(name)
			kind, text := message(a)
			input, err := a.Input(kind, text)
			require.NoError(b, err)
			signed := Signed{name, kind, text, p.sign(b, a, input)}
			b.Run(spec+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					require.NoError(b, p.public.Verify(signed))
				}
			})
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	for _, spec := range rsaSpecs {
		for _, name := range EncryptionOf(spec) {
			b.Run(spec+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := pair(spec).public.Encrypt(name, make([]byte, 32))
					require.NoError(b, err)
				}
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, spec := range specs {
		der := pair(spec).public.Marshal()
		b.Run(spec, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := Parse(der)
				require.NoError(b, err)
			}
		})
	}
}
