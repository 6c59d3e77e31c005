package fault

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// imported is a key with imported material, with what was encrypted under it.
type imported struct {
	secret
	set      kmstest.ImportSet
	material []byte
	id       string // of the material
}

// newImported imports material in the way for which SoftHSM needs the help of the process.
func newImported(t *testing.T, s *kmstest.Server, material string) *imported {
	t.Helper()
	x := &imported{secret: secret{key: s.NewExternalKey(t), plaintext: "kept"}, material: []byte(material)}
	x.set = s.ImportSet(t, x.key, "RSAES_OAEP_SHA_256", "RSA_2048")
	x.id = s.Import(t, x.set, x.material)
	x.blob = s.Encrypt(t, x.key, []byte(x.plaintext), nil)
	return x
}

func (x *imported) remove(t *testing.T, s *kmstest.Server) error {
	t.Helper()
	_, err := s.Client().DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &x.key})
	return err
}

func (x *imported) bring(t *testing.T, s *kmstest.Server) error {
	t.Helper()
	_, err := s.Client().ImportKeyMaterial(t.Context(), x.set.Input(t, x.material))
	return err
}

func (x *imported) state(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	out, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &x.key})
	require.NoError(t, err)
	return string(out.KeyMetadata.KeyState)
}

// requireSound checks that the key has its material, or says that it has none and takes it again. Afterwards it has it.
func (x *imported) requireSound(t *testing.T, s *kmstest.Server) {
	t.Helper()
	if x.state(t, s) != "Enabled" {
		require.Equal(t, "PendingImport", x.state(t, s))
		_, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: x.blob})
		kmstest.RequireError(t, err, "KMSInvalidStateException", kmstest.KeyARN(x.key)+" is pending import.")
		require.Equal(t, x.id, s.Import(t, x.set, x.material))
	}
	x.requireOpens(t, s)
}

// importCrash is an operation in whose calls of the module the server is killed.
type importCrash struct {
	name string
	// prepare brings the key into the state that the operation begins with.
	prepare func(*testing.T, *imported, *kmstest.Server)
	operate func(*testing.T, *imported, *kmstest.Server) error
	// functions are those in which to kill, by home.
	functions []string
	// orphans is what one kill may leave on the token at most, by home.
	orphans map[string]int
}

var importCrashes = []importCrash{
	{
		name:    "GetParametersForImport",
		prepare: func(*testing.T, *imported, *kmstest.Server) {},
		operate: func(t *testing.T, x *imported, s *kmstest.Server) error {
			_, err := s.Client().GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
				KeyId: &x.key, WrappingAlgorithm: "RSAES_OAEP_SHA_1", WrappingKeySpec: "RSA_2048",
			})
			return err
		},
		functions: []string{"C_GenerateKeyPair"},
		orphans:   map[string]int{kmstest.HomeToken: 1, kmstest.HomeWrapped: 1},
	},
	{
		name:      "ImportKeyMaterial",
		prepare:   func(t *testing.T, x *imported, s *kmstest.Server) { require.NoError(t, x.remove(t, s)) },
		operate:   func(t *testing.T, x *imported, s *kmstest.Server) error { return x.bring(t, s) },
		functions: []string{"C_CreateObject", "C_UnwrapKey", "C_WrapKey"},
		orphans:   map[string]int{kmstest.HomeToken: 1},
	},
	{
		name:      "DeleteImportedKeyMaterial",
		prepare:   func(*testing.T, *imported, *kmstest.Server) {},
		operate:   func(t *testing.T, x *imported, s *kmstest.Server) error { return x.remove(t, s) },
		functions: []string{"C_DestroyObject"},
	},
	{
		name:      "ImportKeyMaterial of what is there",
		prepare:   func(*testing.T, *imported, *kmstest.Server) {},
		operate:   func(t *testing.T, x *imported, s *kmstest.Server) error { return x.bring(t, s) },
		functions: []string{"C_DestroyObject"},
		orphans:   map[string]int{kmstest.HomeToken: 1},
	},
}

// TestImportKilled kills the server before and after each call of the module with which an import or its undoing makes or
// destroys something. No key is without its material then that says it has it, all that was doomed is destroyed after the
// restart, and at most the one object that was being made is left, and reported.
func TestImportKilled(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		for _, crash := range importCrashes {
			t.Run(crash.name, func(t *testing.T) {
				r := newRig(t, kmstest.Options{Home: home})
				x, spare := newImported(t, r.Server, "0123456789abcdef0123456789abcdef"), newImported(t, r.Server, "fedcba9876543210fedcba9876543210")
				k := &killer{rig: r, x: x, spare: spare, crash: crash, most: crash.orphans[home]}
				kills := 0
				for _, function := range crash.functions {
					for _, when := range []string{"", " when=after"} {
						n := 0
						for k.kill(t, fmt.Sprintf("%s kill=1 skip=%d%s", function, n, when)) {
							n++
						}
						kills += n
					}
				}
				t.Logf("%d kills, %d orphans", kills, k.orphans)
				require.NotZero(t, kills)
			})
		}
	})
}

type killer struct {
	*rig
	x, spare *imported
	crash    importCrash
	most     int // orphans that a kill may leave
	orphans  int // so far
}

// kill has the operation meet a rule that kills the server, looks what a restarted one makes of it, and tells whether the
// operation made the call.
func (k *killer) kill(t *testing.T, rule string) bool {
	t.Helper()
	require.NoError(t, k.spare.bring(t, k.Server)) // what a server does once is done
	k.x.requireOpens(t, k.Server)
	k.crash.prepare(t, k.x, k.Server)
	k.fault.Set(rule)
	err := k.crash.operate(t, k.x, k.Server)
	k.fault.Clear()
	if err == nil {
		k.x.requireSound(t, k.Server)
		return false
	}
	require.ErrorContains(t, k.Wait(), "signal: killed", "%v", err)
	require.NoError(t, k.Run())
	orphans := requireStockTaken(t, k.Server)
	require.GreaterOrEqual(t, orphans, k.orphans, "orphans went away by themselves")
	require.LessOrEqual(t, orphans, k.orphans+k.most, rule)
	k.orphans = orphans
	if k.crash.name == "DeleteImportedKeyMaterial" {
		require.Equal(t, "PendingImport", k.x.state(t, k.Server), "the order was given before anything was destroyed")
		k.requireLogged(t, "destroyed key material on the token", 1)
	}
	k.x.requireSound(t, k.Server)
	k.spare.requireOpens(t, k.Server)
	return true
}
