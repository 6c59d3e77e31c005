package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// decodeAs decodes body as a request of an operation.
func decodeAs(t testing.TB, operation, body string) (any, error) {
	d := decoderFor(t, operation)
	dst := reflect.New(d.input)
	err := d.decode([]byte(body), dst.Interface())
	return dst.Elem().Interface(), err
}

// pointer gives the address of a copy of v.
func pointer[T any](v T) *T { return &v }

func TestDecode(t *testing.T) {
	validTo := &kms.Timestamp{Time: time.UnixMilli(1_700_000_000_123).UTC()}
	for _, test := range []struct {
		name      string
		operation string
		body      string
		want      any
	}{
		{"no body", "ListKeys", ``, listKeysInput{}},
		{"white space", "ListKeys", " \t\r\n", listKeysInput{}},
		{"an empty object", "ListKeys", "\n{ } ", listKeysInput{}},
		{"null members", "ListKeys", `{"Limit":null,"Marker":null}`, listKeysInput{}},
		{"unknown members", "ListKeys", `{"limit":"x","Foo":{"Limit":3},"Marker2":[[{}]],"":1,"Limit":7}`, listKeysInput{Limit: pointer(int32(7))}},
		{"the last of two members", "ListKeys", `{"Limit":"x","Limit":5,"Marker":"a","Limit":8}`, listKeysInput{Limit: pointer(int32(8)), Marker: "a"}},
		{"a last member of null", "ListKeys", `{"Limit":5,"Limit":null}`, listKeysInput{}},
		{"escaped member names", "ListKeys", `{"\u004cimi\u0074":1}`, listKeysInput{Limit: pointer(int32(1))}},
		{"bounds", "ListKeys", `{"Limit":1000,"Marker":"` + strings.Repeat("m", 1024) + `"}`, listKeysInput{Limit: pointer(int32(1000)), Marker: strings.Repeat("m", 1024)}},
		{
			"Encrypt", "Encrypt",
			`{"KeyId":"alias/a","Plaintext":"aGVsbG8=","EncryptionContext":{"a":"b","":"","\u0061\/":"\ud83d\ude00"},"GrantTokens":["x","y"],"EncryptionAlgorithm":"RSAES_OAEP_SHA_1","DryRun":true}`,
			encryptInput{
				KeyId: "alias/a", Plaintext: []byte("hello"), EncryptionContext: map[string]string{"a": "b", "": "", "a/": "😀"},
				GrantTokens: []string{"x", "y"}, EncryptionAlgorithm: "RSAES_OAEP_SHA_1", DryRun: true,
			},
		},
		{
			"escaped base64", "Encrypt", `{"KeyId":"k","Plaintext":"\/\u002b8\u003D"}`,
			encryptInput{KeyId: "k", Plaintext: []byte{0xFF, 0xEF}},
		},
		{
			"empty collections", "ReEncrypt", `{"DestinationKeyId":"d","SourceEncryptionContext":{},"GrantTokens":[ ],"DryRunModifiers":[],"DryRun":false}`,
			reEncryptInput{DestinationKeyId: "d", SourceEncryptionContext: map[string]string{}, GrantTokens: []string{}, DryRunModifiers: []algorithm{}, DryRun: pointer(false)},
		},
		{
			"ReEncrypt", "ReEncrypt",
			`{"CiphertextBlob":"AAEC","DestinationKeyId":"d","SourceKeyId":"s","SourceEncryptionContext":{"a":"1"},"DestinationEncryptionContext":{"a":"2","a":"3"},"DryRunModifiers":["IGNORE_CIPHERTEXT"]}`,
			reEncryptInput{
				CiphertextBlob: []byte{0, 1, 2}, DestinationKeyId: "d", SourceKeyId: "s", SourceEncryptionContext: map[string]string{"a": "1"},
				DestinationEncryptionContext: map[string]string{"a": "3"}, DryRunModifiers: []algorithm{"IGNORE_CIPHERTEXT"},
			},
		},
		{
			"CreateKey", "CreateKey",
			`{"Description":"","KeySpec":"ML_DSA_65","Tags":[{"TagKey":"k","TagValue":"","Other":1},{"TagValue":"v","TagKey":"l"}],"MultiRegion":true,"BypassPolicyLockoutSafetyCheck":true}`,
			createKeyInput{
				Description: pointer(""), KeySpec: "ML_DSA_65", Tags: []tag{{"k", ""}, {"l", "v"}}, MultiRegion: pointer(true),
				BypassPolicyLockoutSafetyCheck: true,
			},
		},
		{
			"GenerateRandom", "GenerateRandom", `{"NumberOfBytes":1024,"Recipient":{"AttestationDocument":"AA=="}}`,
			generateRandomInput{NumberOfBytes: 1024, Recipient: &recipient{AttestationDocument: []byte{0}}},
		},
		{
			"a structure without members", "GenerateRandom", `{"Recipient":{}}`, generateRandomInput{Recipient: &recipient{}},
		},
		{
			"ImportKeyMaterial", "ImportKeyMaterial", `{"KeyId":"k","ImportToken":"AA==","EncryptedKeyMaterial":"AQ==","ValidTo":1700000000.123}`,
			importKeyMaterialInput{KeyId: "k", ImportToken: []byte{0}, EncryptedKeyMaterial: []byte{1}, ValidTo: validTo},
		},
		{
			"CreateGrant", "CreateGrant",
			`{"KeyId":"k","GranteePrincipal":"arn:aws:iam::111122223333:root","Operations":["Decrypt","ReEncryptTo"],"Constraints":{"EncryptionContextSubset":{"a":"b"}},"Name":"n"}`,
			createGrantInput{
				KeyId: "k", GranteePrincipal: "arn:aws:iam::111122223333:root", Operations: []string{"Decrypt", "ReEncryptTo"},
				Constraints: &grantConstraints{EncryptionContextSubset: map[string]string{"a": "b"}}, Name: "n",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeAs(t, test.operation, test.body)
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestDecodeTimestamps(t *testing.T) {
	for seconds, ms := range map[string]int64{
		"0": 0, "-0": 0, "1700000000": 1_700_000_000_000, "1.7E9": 1_700_000_000_000, "1700000000.1239": 1_700_000_000_124, "-1.5": -1500,
		"253402300799.999": latestTimestamp, "-62135596800": earliestTimestamp,
	} {
		got, err := decodeAs(t, "ImportKeyMaterial", `{"KeyId":"k","ImportToken":"AA==","EncryptedKeyMaterial":"AQ==","ValidTo":`+seconds+`}`)
		require.NoError(t, err, seconds)
		require.Equal(t, time.UnixMilli(ms).UTC(), got.(importKeyMaterialInput).ValidTo.Time, seconds)
	}
}

// TestSerialization pins the texts for bodies and values that do not have the form of their type.
func TestSerialization(t *testing.T) {
	const (
		structure = "Start of structure or map found where not expected."
		list      = "Start of list found where not expected"
		scalar    = "Unexpected field type"
	)
	for _, test := range []struct {
		operation string
		body      string
		text      string
	}{
		{"ListKeys", `{`, ""},
		{"ListKeys", `{"Limit":1}}`, ""},
		{"ListKeys", `{"Marker":"` + "\xc3\x28" + `"}`, ""},
		{"ListKeys", `{"Marker":"\ud800"}`, ""},
		{"ListKeys", `{"\ud800":1}`, ""},
		{"ListKeys", `[]`, list},
		{"ListKeys", `"{}"`, scalar},
		{"ListKeys", `null`, scalar},
		{"ListKeys", `1`, scalar},
		{"ListKeys", `{"Marker":1}`, "NUMBER_VALUE can not be converted to a String"},
		{"ListKeys", `{"Marker":true}`, "TRUE_VALUE can not be converted to a String"},
		{"ListKeys", `{"Marker":false}`, "FALSE_VALUE can not be converted to a String"},
		{"ListKeys", `{"Marker":{}}`, structure},
		{"ListKeys", `{"Marker":["a"]}`, list},
		{"ListKeys", `{"Limit":"1"}`, "STRING_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":true}`, "TRUE_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":1.0}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":1e2}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":2147483648}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":-2147483649}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":[1]}`, list},
		{"GenerateRandom", `{"NumberOfBytes":4294967296}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"GenerateRandom", `{"Recipient":"x"}`, scalar},
		{"GenerateRandom", `{"Recipient":3}`, scalar},
		{"GenerateRandom", `{"Recipient":[]}`, list},
		{"Encrypt", `{"DryRun":"true"}`, "STRING_VALUE can not be converted to a Boolean"},
		{"Encrypt", `{"DryRun":1}`, "NUMBER_VALUE can not be converted to a Boolean"},
		{"Encrypt", `{"DryRun":{}}`, structure},
		{"Encrypt", `{"GrantTokens":"a"}`, scalar},
		{"Encrypt", `{"GrantTokens":false}`, scalar},
		{"Encrypt", `{"GrantTokens":{}}`, structure},
		{"Encrypt", `{"GrantTokens":["a",1]}`, "NUMBER_VALUE can not be converted to a String"},
		{"Encrypt", `{"GrantTokens":[[]]}`, list},
		{"Encrypt", `{"GrantTokens":[1,2,3,4,5,6,7,8,9,10,11]}`, "NUMBER_VALUE can not be converted to a String"},
		{"Encrypt", `{"EncryptionContext":"a"}`, scalar},
		{"Encrypt", `{"EncryptionContext":["a"]}`, list},
		{"Encrypt", `{"EncryptionContext":{"a":1}}`, "NUMBER_VALUE can not be converted to a String"},
		{"Encrypt", `{"EncryptionContext":{"a":{}}}`, structure},
		{"Encrypt", `{"EncryptionContext":{"a":"\udc00"}}`, ""},
		{"Encrypt", `{"EncryptionContext":{"\udc00":"a"}}`, ""},
		{"Encrypt", `{"Plaintext":1}`, "NUMBER_VALUE can not be converted to a ByteBuffer"},
		{"Encrypt", `{"Plaintext":[1]}`, list},
		{"Encrypt", `{"Plaintext":"\ud800"}`, ""},
		{"CreateKey", `{"Tags":["a"]}`, scalar},
		{"CreateKey", `{"Tags":[[]]}`, list},
		{"CreateKey", `{"Tags":{}}`, structure},
		{"CreateKey", `{"Tags":[{"TagKey":[]}]}`, list},
		{"ImportKeyMaterial", `{"ValidTo":"2024-01-01T00:00:00Z"}`, "STRING_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":false}`, "FALSE_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":{}}`, structure},
		{"ImportKeyMaterial", `{"ValidTo":1e999}`, "NUMBER_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":253402300800}`, "NUMBER_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":-62135596800.001}`, "NUMBER_VALUE can not be converted to milliseconds since epoch"},
	} {
		t.Run(test.operation+test.body, func(t *testing.T) {
			got, err := decodeAs(t, test.operation, test.body)
			requireError(t, err, kms.Serialization, test.text)
			require.Zero(t, got)
		})
	}
}

// requireError holds err against the type and text that a caller sees.
func requireError(t *testing.T, err error, want kms.ErrorType, text string) {
	t.Helper()
	require.Error(t, err)
	var e *kms.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, want, e.Type)
	require.Equal(t, text, e.Message)
}

func TestDecodeRefusesBase64(t *testing.T) {
	for _, text := range []string{"a", "YQ", "YQ=", "YR==", "YQ==YQ==", "Y Q=", `YWJj\n`, `YW\r\nJj`, `\nYQ==`, "-_-_", "=", "====", "YWJjéé"} {
		_, err := decodeAs(t, "Encrypt", `{"KeyId":"k","Plaintext":"`+text+`"}`)
		requireError(t, err, kms.Serialization, "")
		require.ErrorIs(t, err, errNotBase64, text)
	}
}

func TestDecodeIntoAnotherType(t *testing.T) {
	d := decoderFor(t, "ListKeys")
	for _, dst := range []any{listKeysInput{}, &encryptInput{}, (*listKeysInput)(nil), nil} {
		err := d.decode([]byte(`{}`), dst)
		require.ErrorContains(t, err, "the decoder was made for *api.listKeysInput")
		require.Equal(t, kms.InternalError, kms.TypeOf(err))
	}
}

// TestDecodeForgetsOldValues: what a destination held before is gone, whether its member is in the request or not.
func TestDecodeForgetsOldValues(t *testing.T) {
	d := decoderFor(t, "ListKeys")
	in := listKeysInput{Limit: pointer(int32(3)), Marker: "old"}
	require.NoError(t, d.decode([]byte(`{"Limit":4}`), &in))
	require.Equal(t, listKeysInput{Limit: pointer(int32(4))}, in)
}

// TestDecodeKeepsNothingOfBody wipes the body after a decode, as a server does.
func TestDecodeKeepsNothingOfBody(t *testing.T) {
	for operation, body := range examples {
		d := decoderFor(t, operation)
		text := []byte(body)
		got, want := reflect.New(d.input), reflect.New(d.input)
		require.NoError(t, d.decode(text, got.Interface()))
		require.Equal(t, body, string(text))
		clear(text)
		require.NoError(t, d.decode([]byte(body), want.Interface()))
		require.Equal(t, want.Interface(), got.Interface())
	}
}

// TestDiscardWipes looks at the memory that blobs had.
func TestDiscardWipes(t *testing.T) {
	in := importKeyMaterialInput{ImportToken: []byte("secret"), EncryptedKeyMaterial: []byte("secret")}
	token, material := in.ImportToken, in.EncryptedKeyMaterial
	decoderFor(t, "ImportKeyMaterial").root.discard(reflect.ValueOf(&in).Elem())
	require.Equal(t, make([]byte, 6), token)
	require.Equal(t, make([]byte, 6), material)
	require.Zero(t, in)

	random := generateRandomInput{Recipient: &recipient{AttestationDocument: []byte("secret")}}
	document := random.Recipient.AttestationDocument
	root := decoderFor(t, "GenerateRandom").root
	root.discard(reflect.ValueOf(&random).Elem())
	require.Equal(t, make([]byte, 6), document)
	require.Zero(t, random)
	root.discard(reflect.ValueOf(&random).Elem()) // no Recipient to wipe
}

// TestDecodeFailureLeavesNothing: whatever fails, the destination was discarded.
func TestDecodeFailureLeavesNothing(t *testing.T) {
	for _, body := range []string{
		`{"KeyId":"k","Plaintext":"c2VjcmV0","DryRun":1}`, `{"KeyId":"","Plaintext":"c2VjcmV0"}`, `{"KeyId":"k","Plaintext":"c2VjcmV0!"}`, `{`,
	} {
		in := encryptInput{Plaintext: []byte("old")}
		require.Error(t, decoderFor(t, "Encrypt").decode([]byte(body), &in))
		require.Zero(t, in)
	}
}

// TestBlobsInLists: the model has none, but what it could have is read and wiped.
func TestBlobsInLists(t *testing.T) {
	type box struct {
		Data []byte
		N    int32
	}
	type input struct{ M []*box }
	d, err := newDecoder(modelWith(t, `{"type": "list", "max": 2, "member": {"shape": "Box"}}`), "Op", reflect.TypeFor[input]())
	require.NoError(t, err)
	var in input
	require.NoError(t, d.decode([]byte(`{"M":[{"Data":"YQ=="},{"N":2}]}`), &in))
	require.Equal(t, input{[]*box{{Data: []byte("a")}, {N: 2}}}, in)
	data := in.M[0].Data
	d.root.discard(reflect.ValueOf(&in).Elem())
	require.Equal(t, []byte{0}, data)
	requireError(t, d.decode([]byte(`{"M":[{},{},{}]}`), &in), kms.Validation,
		"1 validation error detected: Value at 'm' failed to satisfy constraint: Member must have length less than or equal to 2")
}

func TestDecodeConcurrently(t *testing.T) {
	d := decoderFor(t, "ReEncrypt")
	var want reEncryptInput
	require.NoError(t, d.decode([]byte(examples["ReEncrypt"]), &want))
	got := make([]reEncryptInput, 8)
	errs := make([]error, len(got))
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() { errs[i] = d.decode([]byte(examples["ReEncrypt"]), &got[i]) })
	}
	all.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		require.Equal(t, want, got[i])
	}
}

// FuzzDecode: no text makes the decoder panic, and what it accepts is the same after a trip through encoding/json.
func FuzzDecode(f *testing.F) {
	decoders := map[string]*decoder{}
	for operation, body := range examples {
		decoders[operation] = decoderFor(f, operation)
		f.Add(operation, []byte(body))
	}
	f.Add("GenerateRandom", []byte(`{"NumberOfBytes":1,"Recipient":{"AttestationDocument":"\/\/8="}}`))
	f.Add("ImportKeyMaterial", []byte(`{"KeyId":"k","ImportToken":"AA==","EncryptedKeyMaterial":"AQ==","ValidTo":-1.7E-9}`))
	f.Add("CreateKey", []byte(`{"Tags":[null,{"TagKey":null}],"Description":""}`))
	f.Add("Encrypt", []byte(`{"GrantTokens":[null,"",1],"EncryptionContext":{"\u00e9":null}}`))
	f.Fuzz(func(t *testing.T, operation string, body []byte) {
		d := decoders[operation]
		if d == nil {
			return
		}
		first, second := reflect.New(d.input), reflect.New(d.input)
		if err := d.decode(body, first.Interface()); err != nil {
			require.ErrorAs(t, err, new(*kms.Error))
			require.True(t, first.Elem().IsZero())
			return
		}
		text, err := json.Marshal(first.Interface())
		require.NoError(t, err)
		require.NoError(t, d.decode(text, second.Interface()), "%s", text)
		require.Equal(t, first.Interface(), second.Interface())
	})
}

// examples are requests as the SDKs send them.
var examples = map[string]string{
	"Encrypt": `{"KeyId":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",` +
		`"Plaintext":"c2l4dGVlbiBieXRlcyEhc2l4dGVlbiBieXRlcyEh","EncryptionContext":{"tenant":"acme","purpose":"backup"},` +
		`"EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`,
	"ReEncrypt": `{"CiphertextBlob":"` + strings.Repeat("AQIDBAUG", 25) + `","SourceEncryptionContext":{"tenant":"acme","purpose":"backup"},` +
		`"SourceKeyId":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",` +
		`"DestinationKeyId":"alias/archive","DestinationEncryptionContext":{"tenant":"acme","purpose":"archive"}}`,
	"CreateKey": `{"Description":"Payroll","KeyUsage":"ENCRYPT_DECRYPT","KeySpec":"SYMMETRIC_DEFAULT","Origin":"AWS_KMS",` +
		`"Tags":[{"TagKey":"team","TagValue":"payroll"},{"TagKey":"stage","TagValue":"production"},{"TagKey":"cost","TagValue":"4711"}],"MultiRegion":false}`,
	"ListKeys":       `{"Limit":100,"Marker":"MDAwMQ"}`,
	"GenerateRandom": `{"NumberOfBytes":32}`,
	"ImportKeyMaterial": `{"KeyId":"1234abcd-12ab-34cd-56ef-1234567890ab","ImportToken":"` + strings.Repeat("dG9rZW4h", 100) +
		`","EncryptedKeyMaterial":"` + strings.Repeat("bWF0ZXJp", 43) + `","ValidTo":1893456000.5,"ExpirationModel":"KEY_MATERIAL_EXPIRES"}`,
	"CreateGrant": `{"KeyId":"1234abcd-12ab-34cd-56ef-1234567890ab","GranteePrincipal":"arn:aws:iam::111122223333:role/worker",` +
		`"Operations":["Decrypt","ReEncryptFrom"],"Constraints":{"EncryptionContextEquals":{"tenant":"acme"}},"Name":"worker"}`,
}

// BenchmarkDecode stands beside encoding/json reading the same body into the same type, which checks no constraint.
func BenchmarkDecode(b *testing.B) {
	bodies := map[string][]byte{}
	for _, operation := range []string{"Encrypt", "ReEncrypt", "CreateKey"} {
		bodies[operation] = []byte(examples[operation])
	}
	bodies["Encrypt4KiB"] = bytes.Replace(bodies["Encrypt"], []byte("c2l4"), bytes.Repeat([]byte("c2l4"), 1350), 1)
	for name, body := range bodies {
		d := decoderFor(b, strings.TrimSuffix(name, "4KiB"))
		dst := reflect.New(d.input)
		b.Run(name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.decode(body, dst.Interface()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/json", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				dst.Elem().SetZero()
				if err := json.Unmarshal(body, dst.Interface()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
