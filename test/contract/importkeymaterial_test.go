package contract

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// The texts about imported material.
const (
	badImportToken   = "The provided import token is invalid or is associated with a different KMS key."
	unlikeMaterial   = "The key material in the request is not the same key material that was previously imported into this KMS key."
	knownMaterial    = "The key material in the request is already associated with this KMS key."
	unnamedMaterial  = "The key material in the request is not the key material that the KeyMaterialId names."
	invalidMaterial  = "The key material in the request is invalid for this KMS key."
	validToIsMissing = "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"
	doesNotExpire    = "KEY_MATERIAL_DOES_NOT_EXPIRE"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// quickSet makes an import set of the quickest kind.
func quickSet(t testing.TB, s *kmstest.Server, id string) kmstest.ImportSet {
	t.Helper()
	return s.ImportSet(t, id, "RSAES_OAEP_SHA_256", "RSA_2048")
}

// newImport is a request to import material that does not expire.
func newImport(t *testing.T, set kmstest.ImportSet, material []byte) request {
	t.Helper()
	encrypted, err := set.Wrap(material)
	require.NoError(t, err)
	return request{"ImportKeyMaterial", members{
		"KeyId": set.KeyID, "ImportToken": set.Token, "EncryptedKeyMaterial": encrypted, "ExpirationModel": doesNotExpire,
	}}
}

// metadataOf gives what DescribeKey says of a key.
func metadataOf(t testing.TB, s *kmstest.Server, id string) members {
	t.Helper()
	return accept(t, s, "DescribeKey", object(t, "KeyId", id))["KeyMetadata"].(members)
}

// destroyed tells how often the schedule, or a request, destroyed something on the token.
func destroyed(s *kmstest.Server) int {
	return strings.Count(s.Log(), `"msg":"destroyed key material on the token"`)
}

func asNewMaterial(in *kms.ImportKeyMaterialInput) { in.ImportType = types.ImportTypeNewKeyMaterial }

// TestImportKeyMaterial imports, deletes and imports again in every algorithm. It is the same material, whatever the way.
func TestImportKeyMaterial(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other, material := s.NewExternalKey(t), s.NewExternalKey(t), randomBytes(32)
		waiting := wantMetadata(metadataOf(t, s, id), members{"Enabled": false, "KeyState": "PendingImport", "Origin": "EXTERNAL"})
		delete(waiting, "CurrentKeyMaterialId")
		require.Equal(t, waiting, metadataOf(t, s, id))
		var materialID string
		var blobs [][]byte
		ways := []struct{ algorithm, spec string }{ // every algorithm, and every size of wrapping key
			{"RSAES_OAEP_SHA_1", "RSA_2048"}, {"RSAES_OAEP_SHA_256", "RSA_4096"},
			{"RSA_AES_KEY_WRAP_SHA_1", "RSA_3072"}, {"RSA_AES_KEY_WRAP_SHA_256", "RSA_2048"},
		}
		for n, way := range ways {
			s.Post(t, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x"))).
				RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending import.")
			answer := newImport(t, s.ImportSet(t, id, way.algorithm, way.spec), material).requireSuccess(t, s)
			if n == 0 {
				materialID = answer["KeyMaterialId"].(string)
				require.Regexp(t, materialIDForm, materialID)
			}
			require.Equal(t, members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": materialID}, answer)
			metadata := metadataOf(t, s, id)
			require.Equal(t, wantMetadata(metadata, members{
				"Origin": "EXTERNAL", "CurrentKeyMaterialId": materialID, "ExpirationModel": doesNotExpire,
			}), metadata)
			blobs = append(blobs, s.Encrypt(t, id, []byte(way.algorithm), nil))
			if n < len(ways)-1 {
				accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id))
			}
		}
		for n, blob := range blobs {
			require.Equal(t, ways[n].algorithm, string(s.Decrypt(t, blob, nil)))
		}
		require.NotEqual(t, materialID, s.Import(t, quickSet(t, s, other), material), "another key's id says nothing of this one's")
	})
}

// TestImportKeyMaterialSDK reads the answer as AWS's client does, names the key by its ARN, and uses the same import set
// for both imports.
func TestImportKeyMaterialSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, first, second := s.NewExternalKey(t), randomBytes(32), randomBytes(32)
		set, until := quickSet(t, s, id), time.Now().Add(time.Hour).Truncate(time.Millisecond)
		expiring := func(in *kms.ImportKeyMaterialInput) {
			in.KeyId, in.ExpirationModel, in.ValidTo = aws.String(kmstest.KeyARN(id)), types.ExpirationModelTypeKeyMaterialExpires, &until
		}
		materialID := s.Import(t, set, first, expiring, asNewMaterial)
		out, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, types.ExpirationModelTypeKeyMaterialExpires, out.KeyMetadata.ExpirationModel)
		require.True(t, until.Equal(*out.KeyMetadata.ValidTo), out.KeyMetadata.ValidTo)
		require.Equal(t, materialID, *out.KeyMetadata.CurrentKeyMaterialId)
		blob := s.Encrypt(t, id, []byte("hello"), nil)
		require.NotEqual(t, materialID, s.Import(t, set, second, asNewMaterial))
		require.Equal(t, materialID, currentMaterial(t, s, id), "until the next rotation")
		require.Equal(t, materialID, s.Import(t, set, first, func(in *kms.ImportKeyMaterialInput) {
			in.ImportType, in.KeyMaterialId, in.KeyMaterialDescription = types.ImportTypeExistingKeyMaterial, &materialID, aws.String("An old one: a/b_c.d-e")
		}))
		require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)), "material that is imported again while it is there stays in use")
		metadata := metadataOf(t, s, id)
		require.Equal(t, doesNotExpire, metadata["ExpirationModel"])
		require.NotContains(t, metadata, "ValidTo")
	})
}

// brief is material that expires soon.
type brief struct {
	id        string
	blob      []byte // under it
	until     time.Time
	destroyed int // how many were when it was imported
}

// importBriefly imports material that expires soon, but not before something is encrypted under it, however slow the machine.
func importBriefly(t *testing.T, s *kmstest.Server, set kmstest.ImportSet, material []byte) brief {
	t.Helper()
	for span := 2 * time.Second; span < waitLimit; span *= 2 {
		b := brief{until: time.Now().Add(span), destroyed: destroyed(s)}
		in := set.Input(t, material)
		in.ExpirationModel, in.ValidTo = "", &b.until
		out, err := s.Client().ImportKeyMaterial(t.Context(), in)
		var sealed *kms.EncryptOutput
		if err == nil {
			b.id = *out.KeyMaterialId
			sealed, err = s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &set.KeyID, Plaintext: []byte("hello")})
		}
		if err == nil {
			b.blob = sealed.CiphertextBlob
			return b
		}
		require.False(t, time.Now().Before(b.until.Truncate(time.Millisecond)), err)
	}
	require.Fail(t, "the machine is too slow")
	return brief{}
}

// TestImportedMaterialExpires imports material that expires soon, and again. When it has expired it is destroyed.
func TestImportedMaterialExpires(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		set := quickSet(t, s, id)
		b := importBriefly(t, s, set, material)
		pending := func() bool {
			_, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &id, Plaintext: []byte("x")})
			return codeOf(err) == "KMSInvalidStateException"
		}
		require.Eventually(t, pending, waitLimit, waitStep)
		require.False(t, time.Now().Before(b.until.Truncate(time.Millisecond)), "expired before its time")
		require.Eventually(t, func() bool { return destroyed(s) > b.destroyed }, waitLimit, waitStep, "it is still on the token")
		metadata := metadataOf(t, s, id)
		require.Equal(t, wantMetadata(metadata, members{
			"Origin": "EXTERNAL", "Enabled": false, "KeyState": "PendingImport", "CurrentKeyMaterialId": b.id,
		}), metadata)
		s.Post(t, "Decrypt", object(t, "CiphertextBlob", b.blob)).RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending import.")
		s.Import(t, set, material)
		require.Equal(t, "hello", string(s.Decrypt(t, b.blob, nil)))
	})
}

// TestImportOfNewMaterial imports material beside the current one.
func TestImportOfNewMaterial(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		set := quickSet(t, s, id)
		first, second, third := randomBytes(32), randomBytes(32), randomBytes(32)
		a := s.Import(t, set, first, asNewMaterial)
		newImport(t, set, first).with("ImportType", "NEW_KEY_MATERIAL").requireRefusal(t, s, "IncorrectKeyMaterialException", knownMaterial)
		newImport(t, set, second).requireRefusal(t, s, "IncorrectKeyMaterialException", unlikeMaterial)
		newImport(t, set, first).with("KeyMaterialId", strings.Repeat("0", 64)).requireRefusal(t, s, "IncorrectKeyMaterialException", unnamedMaterial)
		b := s.Import(t, set, second, asNewMaterial)
		newImport(t, set, second).with("ImportType", "NEW_KEY_MATERIAL").requireRefusal(t, s, "IncorrectKeyMaterialException", knownMaterial)
		refused := newImport(t, set, third).with("ImportType", "NEW_KEY_MATERIAL").send(t, s)
		message, _ := refused.JSON(t)["message"].(string)
		c, _, _ := strings.Cut(strings.TrimPrefix(message, "New key material (id: "), ")")
		require.Regexp(t, materialIDForm, c)
		refused.RequireRefusal(t, "KMSInvalidStateException", "New key material (id: "+c+") cannot be imported into KMS key "+kmstest.KeyARN(id)+
			", because another key material (id: "+b+") is pending rotation.")
		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id, "KeyMaterialId", b))
		require.Equal(t, c, s.Import(t, set, third, asNewMaterial), "the id of the refused material was right")
		require.Equal(t, a, currentMaterial(t, s, id))
	})
}

// TestImportKeyMaterialStates imports into keys in the other states.
func TestImportKeyMaterialStates(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		set := quickSet(t, s, id)
		s.Import(t, set, material)
		setEnabled(t, s, id, false)
		s.Import(t, set, material)
		_, state := keyState(t, s, id)
		require.Equal(t, "Disabled", state)
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
		newImport(t, set, material).requireRefusal(t, s, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending deletion.")
		ours := s.NewKey(t)
		newImport(t, set, material).with("KeyId", ours).
			requireRefusal(t, s, "UnsupportedOperationException", kmstest.KeyARN(ours)+" origin is AWS_KMS which is not valid for this operation.")
	})
}

// TestImportOfBadMaterial imports what cannot be decrypted, and what is no AES-256 key. The same request then succeeds
// with what is right.
func TestImportOfBadMaterial(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256"} {
			set := s.ImportSet(t, s.NewExternalKey(t), algorithm, "RSA_2048")
			for _, size := range []int{1, 16, 24, 31, 33, 48, 64} {
				newImport(t, set, randomBytes(size)).requireRefusal(t, s, "IncorrectKeyMaterialException", invalidMaterial)
			}
			good := newImport(t, set, randomBytes(32))
			for name, bad := range spoiled(t, s, set, good.body["EncryptedKeyMaterial"].([]byte)) {
				t.Run(algorithm+" "+name, func(t *testing.T) {
					good.with("EncryptedKeyMaterial", bad).requireRefusal(t, s, "InvalidCiphertextException", "")
				})
			}
			good.requireSuccess(t, s)
		}
	})
}

// spoiled are ways to spoil encrypted material.
func spoiled(t *testing.T, s *kmstest.Server, set kmstest.ImportSet, encrypted []byte) map[string][]byte {
	t.Helper()
	other := s.ImportSet(t, set.KeyID, set.Algorithm, "RSA_2048")
	elsewhere, err := other.Wrap(randomBytes(32))
	require.NoError(t, err)
	cross := set
	cross.Algorithm = map[string]string{
		"RSAES_OAEP_SHA_1": "RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_256": "RSAES_OAEP_SHA_1",
		"RSA_AES_KEY_WRAP_SHA_1": "RSA_AES_KEY_WRAP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256": "RSA_AES_KEY_WRAP_SHA_1",
	}[set.Algorithm]
	hashed, err := cross.Wrap(randomBytes(32))
	require.NoError(t, err)
	ways := map[string][]byte{
		"another wrapping key": elsewhere, "another hash": hashed, "one byte": {1}, "random": randomBytes(len(encrypted)),
		"zeros": make([]byte, len(encrypted)), "too long": append(append([]byte{}, encrypted...), 0), "too short": encrypted[:len(encrypted)-1],
		"the longest": randomBytes(6144), "modulus and nothing": encrypted[:256],
	}
	if len(encrypted) == 256 {
		delete(ways, "modulus and nothing") // it is all there is
	}
	for _, n := range []int{0, 1, len(encrypted) / 2, len(encrypted) - 1} {
		flipped := append([]byte{}, encrypted...)
		flipped[n] ^= 1
		ways[fmt.Sprint("a flip of byte ", n)] = flipped
	}
	return ways
}

// TestImportTokens passes other things for the import token.
func TestImportTokens(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		set, other := quickSet(t, s, s.NewExternalKey(t)), quickSet(t, s, s.NewExternalKey(t))
		q := newImport(t, set, randomBytes(32))
		tokens := [][]byte{other.Token, {0}, randomBytes(len(set.Token)), randomBytes(6144), set.Token[1:], set.Token[:len(set.Token)-1], append(append([]byte{}, set.Token...), 0)}
		for n := 0; n < len(set.Token); n += 1 + len(set.Token)/40 {
			altered := append([]byte{}, set.Token...)
			altered[n] ^= 0x10
			tokens = append(tokens, altered)
		}
		for _, token := range tokens {
			q.with("ImportToken", token).requireRefusal(t, s, "InvalidImportTokenException", badImportToken)
		}
		q.with("KeyId", other.KeyID).requireRefusal(t, s, "InvalidImportTokenException", badImportToken)
		again := quickSet(t, s, set.KeyID)
		q.with("ImportToken", again.Token).requireRefusal(t, s, "InvalidCiphertextException", "") // it says under which wrapping key
		q.without("ExpirationModel").requireRefusal(t, s, "ValidationException", validToIsMissing)
		q.requireSuccess(t, s) // the token is still good
	})
}

func TestImportKeyMaterialRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		set := quickSet(t, s, s.NewExternalKey(t))
		q := newImport(t, set, randomBytes(32))
		requireKeyNames(t, s, "ImportKeyMaterial", "keyId", false, func(name string) string {
			return `{"KeyId":` + name + `,"ImportToken":"AAAA","EncryptedKeyMaterial":"AAAA"}`
		})
		for _, member := range []string{"KeyId", "ImportToken", "EncryptedKeyMaterial"} {
			q.without(member).requireRefusal(t, s, "ValidationException", missing(lowerCamel(member)))
		}
		for _, member := range []string{"ImportToken", "EncryptedKeyMaterial"} {
			subject := "Value at '" + lowerCamel(member) + "'"
			q.with(member, []byte{}).requireRefusal(t, s, "ValidationException", invalid(subject, "have length greater than or equal to 1"))
			q.with(member, make([]byte, 6145)).requireRefusal(t, s, "ValidationException", invalid(subject, "have length less than or equal to 6144"))
		}
		seconds := func(d time.Duration) float64 { return float64(time.Now().Add(d).Unix()) }
		const never, year = "A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE", 365 * 24 * time.Hour
		id, long, pattern := strings.Repeat("a", 64), strings.Repeat("d", 257), `satisfy regular expression pattern: ^[a-f0-9]+$`
		for _, test := range []struct {
			q    request
			text string
		}{
			{q.with("ExpirationModel", "KEY_MATERIAL_EXPIRES"), validToIsMissing},
			{q.with("ExpirationModel", nil), validToIsMissing},
			{q.with("ValidTo", seconds(time.Hour)), never},
			{q.without("ExpirationModel").with("ValidTo", seconds(-time.Second)), "The validTo date must be in the future"},
			{q.without("ExpirationModel").with("ValidTo", 0), "The validTo date must be in the future"},
			{q.without("ExpirationModel").with("ValidTo", seconds(year+time.Minute)), "The validTo date must be at most 365 days in the future"},
			{q.with("ExpirationModel", "NEVER"), violated("NEVER", "expirationModel", enumText(t, "ExpirationModelType"))},
			{q.with("ImportType", "NEW"), violated("NEW", "importType", enumText(t, "ImportType"))},
			{q.with("ImportType", "NEW_KEY_MATERIAL").with("KeyMaterialId", id), "You cannot specify a KeyMaterialId when the ImportType is NEW_KEY_MATERIAL."},
			{q.with("KeyMaterialId", id[1:]), violated(id[1:], "keyMaterialId", "have length greater than or equal to 64")},
			{q.with("KeyMaterialId", id+"a"), violated(id+"a", "keyMaterialId", "have length less than or equal to 64")},
			{q.with("KeyMaterialId", id[1:]+"A"), violated(id[1:]+"A", "keyMaterialId", pattern)},
			{q.with("KeyMaterialDescription", long), violated(long, "keyMaterialDescription", "have length less than or equal to 256")},
			{q.with("KeyMaterialDescription", "a<b"), violated("a<b", "keyMaterialDescription", `satisfy regular expression pattern: ^[a-zA-Z0-9:/_\s.-]+$`)},
		} {
			test.q.requireRefusal(t, s, "ValidationException", test.text)
		}
		q.with("ValidTo", "tomorrow").requireRefusal(t, s, "SerializationException", "STRING_VALUE can not be converted to milliseconds since epoch")
		q.without("ExpirationModel").with("ValidTo", seconds(year-time.Hour)).requireSuccess(t, s)
	})
}

// TestConcurrentImports has clients import at the same time into a key without material: all of them the same material,
// or each another one, of which one is taken.
func TestConcurrentImports(t *testing.T) {
	const clients = 8
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, same := range []bool{true, false} {
			set := quickSet(t, s, s.NewExternalKey(t))
			inputs, shared := make([]*kms.ImportKeyMaterialInput, clients), randomBytes(32)
			for i := range inputs {
				material := shared
				if !same {
					material = randomBytes(32)
				}
				inputs[i] = set.Input(t, material)
			}
			codes := make([]string, clients)
			require.NoError(t, together(clients, func(i int) error {
				_, err := s.Client().ImportKeyMaterial(t.Context(), inputs[i])
				codes[i] = codeOf(err)
				return nil
			}))
			counts := map[string]int{}
			for _, code := range codes {
				counts[code]++
			}
			want := map[string]int{"": clients}
			if !same {
				want = map[string]int{"": 1, "IncorrectKeyMaterialException": clients - 1}
			}
			require.Equal(t, want, counts)
			require.Equal(t, "hello", string(s.Decrypt(t, s.Encrypt(t, set.KeyID, []byte("hello"), nil), nil)))
		}
	})
}

// TestImportLeavesNoTrace imports material, and fails to in some ways, with the log at its most talkative.
func TestImportLeavesNoTrace(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256"} {
			set, material := s.ImportSet(t, s.NewExternalKey(t), algorithm, "RSA_2048"), randomBytes(32)
			q := newImport(t, set, material)
			long := newImport(t, set, append(material, 0))
			answers := []kmstest.Answer{
				q.with("ImportToken", material).send(t, s), q.with("EncryptedKeyMaterial", material).send(t, s), long.send(t, s),
				q.with("ImportType", "EXISTING_KEY_MATERIAL").send(t, s), q.send(t, s),
			}
			require.Equal(t, http.StatusOK, answers[4].Status, answers[4].Body)
			log := logOf(t, s, answers)
			encrypted := q.body["EncryptedKeyMaterial"].([]byte)
			for name, secret := range map[string][]byte{"material": material, "encrypted material": encrypted[:64], "import token": set.Token[:64]} {
				numbers := strings.Trim(fmt.Sprint(secret), "[]") //nolint:staticcheck // the numbers are what a careless log would show
				for _, mark := range []string{string(secret), hex.EncodeToString(secret), base64.RawStdEncoding.EncodeToString(secret[:30]), numbers} {
					require.NotContains(t, log, mark, name)
					for _, answer := range answers {
						require.NotContains(t, answer.Body, mark, name)
					}
				}
			}
		}
	})
}

// TestValidToOfSeveralMaterials gives a key materials that expire at different times, also never: the key expires with the
// first of those it uses. What waits for its rotation does not count.
func TestValidToOfSeveralMaterials(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		set := quickSet(t, s, id)
		expiring := func(at time.Time) func(*kms.ImportKeyMaterialInput) {
			return func(in *kms.ImportKeyMaterialInput) {
				in.ExpirationModel, in.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, &at
			}
		}
		expires := func(at any) {
			t.Helper()
			metadata := metadataOf(t, s, id)
			require.Equal(t, at, metadata["ValidTo"])
			model := "KEY_MATERIAL_EXPIRES"
			if at == nil {
				model = doesNotExpire
			}
			require.Equal(t, model, metadata["ExpirationModel"])
		}
		hour := time.Now().Add(time.Hour).Truncate(time.Second)
		day := hour.Add(24 * time.Hour)
		s.Import(t, set, randomBytes(32), expiring(day))
		s.Import(t, set, randomBytes(32), expiring(hour), asNewMaterial)
		expires(float64(day.Unix()))
		rotateNow(t, s, id)
		expires(float64(hour.Unix()))
		s.Import(t, set, randomBytes(32), asNewMaterial)
		rotateNow(t, s, id)
		expires(float64(hour.Unix()))
		other := s.NewExternalKey(t)
		id, set = other, quickSet(t, s, other)
		s.Import(t, set, randomBytes(32))
		expires(nil)
	})
}
