package kms

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// The states are tested cell by cell: each operation that names a key, as a request that is in order but for the state
// of the key, against the published table.

const keyStatesFile = "testdata/key-states.md"

// inferredRows are rows of operations that are younger than the published table.
var inferredRows = []string{
	"| DeriveSharedSecret | ok | X [1] | X [2] or [3] | N/A | N/A | X [14] | ok |",
	"| GetKeyLastUsage | ok | ok | ok | ok | ok | ok | ok |",
	"| ListKeyRotations | ok | ok | ok | ok | ok | ok | ok |",
	"| RotateKeyOnDemand | ok | X [1] | X [3] | X [5] | X [7] | X [14] | ok |",
}

// unserved are the operations of the table that have no method yet.
var unserved = []string{
	"ReplicateKey", "UpdatePrimaryRegion",
}

// keyless are the operations that name no key.
var keyless = []string{"CreateKey", "GenerateRandom", "ListKeys", "ListRetirableGrants"}

// stateCall is a request about firstKey that succeeds if the state of the key allows the operation.
type stateCall struct {
	// operation is the name of the method; what tells apart two requests of the same one.
	operation, what string
	// body is the input as JSON text.
	body string
	// prepare, if set, makes the body while the key is in a state in which that can be done.
	prepare func(t *testing.T, s *Service) string
	// edit, if set, changes the key.
	edit func(*Key)
	// leaving is set for the request in which the key is the one that an alias leaves.
	leaving bool
}

const onFirstKey = `{"KeyId":"` + firstKey + `"}`

// withFirstKey makes a body of firstKey and further members.
func withFirstKey(members string) string {
	return strings.TrimSuffix(onFirstKey, "}") + "," + members + "}"
}

// stateCalls are the requests, for ciphertexts of firstKey and secondKey.
func stateCalls(mine, other string) []stateCall {
	return []stateCall{
		{operation: "CancelKeyDeletion", body: onFirstKey},
		{operation: "CreateAlias", body: `{"AliasName":"alias/new","TargetKeyId":"` + firstKey + `"}`},
		{operation: "CreateGrant", body: grantBody},
		{operation: "Decrypt", what: "by ciphertext", body: `{"CiphertextBlob":"` + mine + `"}`},
		{operation: "Decrypt", what: "by name", body: withFirstKey(`"CiphertextBlob":"` + mine + `"`)},
		{operation: "DeleteAlias", body: `{"AliasName":"alias/first"}`},
		{operation: "DeleteImportedKeyMaterial", body: onFirstKey},
		{operation: "DeriveSharedSecret", body: withFirstKey(`"KeyAgreementAlgorithm":"ECDH","PublicKey":"` + peerKey + `"`), edit: ofSpec("ECC_NIST_P256", KeyAgreement)},
		{operation: "DescribeKey", body: onFirstKey},
		{operation: "DisableKey", body: onFirstKey},
		{operation: "DisableKeyRotation", body: onFirstKey},
		{operation: "EnableKey", body: onFirstKey},
		{operation: "EnableKeyRotation", body: onFirstKey},
		{operation: "Encrypt", body: withFirstKey(`"Plaintext":"dGV4dA=="`)},
		{operation: "GenerateDataKey", body: withFirstKey(`"KeySpec":"AES_256"`)},
		{operation: "GenerateDataKeyPair", body: withFirstKey(`"KeyPairSpec":"ECC_NIST_P256"`)},
		{operation: "GenerateDataKeyPairWithoutPlaintext", body: withFirstKey(`"KeyPairSpec":"RSA_2048"`)},
		{operation: "GenerateDataKeyWithoutPlaintext", body: withFirstKey(`"KeySpec":"AES_256"`)},
		{operation: "GenerateMac", body: withFirstKey(`"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256"`), edit: ofSpec("HMAC_256", GenerateVerifyMac)},
		{operation: "GetKeyLastUsage", body: onFirstKey},
		{operation: "GetKeyPolicy", body: onFirstKey},
		{operation: "GetKeyRotationStatus", body: onFirstKey},
		{operation: "GetParametersForImport", body: parametersBody},
		{operation: "GetPublicKey", body: onFirstKey, edit: ofSpec("RSA_2048", EncryptDecrypt)},
		{operation: "ImportKeyMaterial", prepare: prepareImport},
		{operation: "ListAliases", body: onFirstKey},
		{operation: "ListGrants", body: onFirstKey},
		{operation: "ListKeyPolicies", body: onFirstKey},
		{operation: "ListKeyRotations", body: onFirstKey},
		{operation: "ListResourceTags", body: onFirstKey},
		{operation: "PutKeyPolicy", body: withFirstKey(`"Policy":` + strconv.Quote(defaultPolicy(testAccount)))},
		{operation: "ReEncrypt", what: "from", body: `{"CiphertextBlob":"` + mine + `","DestinationKeyId":"` + secondKey + `"}`},
		{operation: "ReEncrypt", what: "to", body: `{"CiphertextBlob":"` + other + `","DestinationKeyId":"` + firstKey + `"}`},
		{operation: "RetireGrant", prepare: prepareGrant},
		{operation: "RevokeGrant", prepare: prepareGrant},
		{operation: "RotateKeyOnDemand", body: onFirstKey, edit: addPending},
		{operation: "ScheduleKeyDeletion", body: onFirstKey},
		{operation: "Sign", body: withFirstKey(`"Message":"dGV4dA==","SigningAlgorithm":"ED25519_SHA_512"`), edit: ofSpec("ECC_NIST_EDWARDS25519", SignVerify)},
		{operation: "TagResource", body: withFirstKey(`"Tags":[{"TagKey":"a","TagValue":"b"}]`)},
		{operation: "UntagResource", body: withFirstKey(`"TagKeys":["a"]`)},
		{operation: "UpdateAlias", what: "to", body: `{"AliasName":"alias/second","TargetKeyId":"` + firstKey + `"}`},
		{operation: "UpdateAlias", what: "from", body: `{"AliasName":"alias/first","TargetKeyId":"` + secondKey + `"}`, leaving: true},
		{operation: "UpdateKeyDescription", body: withFirstKey(`"Description":"new"`)},
		{operation: "Verify", body: withFirstKey(`"Message":"dGV4dA==","SigningAlgorithm":"ED25519_SHA_512","Signature":"` + soundSignature + `"`),
			edit: ofSpec("ECC_NIST_EDWARDS25519", SignVerify)},
		{operation: "VerifyMac", body: withFirstKey(`"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256","Mac":"dGV4dA=="`), edit: ofSpec("HMAC_256", GenerateVerifyMac)},
	}
}

const grantBody = `{"KeyId":"` + firstKey + `","GranteePrincipal":"arn:aws:iam::` + testAccount + `:user/a","Operations":["Decrypt"]}`

// prepareGrant makes the body that ends a grant which the key got while it was Enabled.
func prepareGrant(t *testing.T, s *Service) string {
	t.Helper()
	put(t, s, newTestKey(firstKey))
	out, err := invoke(t, s, "CreateGrant", grantBody)
	require.NoError(t, err)
	return withFirstKey(`"GrantId":"` + out.(*CreateGrantOutput).GrantId + `"`)
}

const parametersBody = `{"KeyId":"` + firstKey + `","WrappingAlgorithm":"RSAES_OAEP_SHA_256","WrappingKeySpec":"RSA_2048"}`

// prepareImport makes the body of an ImportKeyMaterial with a token that the key got while it was PendingImport.
func prepareImport(t *testing.T, s *Service) string {
	t.Helper()
	put(t, s, newTestKey(firstKey, inState(PendingImport)))
	out, err := invoke(t, s, "GetParametersForImport", parametersBody)
	require.NoError(t, err)
	importToken, err := json.Marshal(reflect.ValueOf(out).Elem().FieldByName("ImportToken").Bytes())
	require.NoError(t, err)
	return withFirstKey(`"EncryptedKeyMaterial":"AAAA","ExpirationModel":"KEY_MATERIAL_DOES_NOT_EXPIRE","ImportToken":` + string(importToken))
}

// addPending gives a key of imported material another one, to be rotated to.
func addPending(key *Key) {
	if key.Origin == OriginExternal && len(key.Materials) > 0 {
		next := newTestKey(secondKey).Materials[0]
		next.Pending = true
		key.Materials = append(key.Materials, next)
	}
}

// soundKey is the key pair of every key of ofSpec, soundSignature its signature of "text", and peerKey a public key to agree
// on a secret with.
var (
	soundKey       = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	soundSignature = base64.StdEncoding.EncodeToString(ed25519.Sign(soundKey, []byte("text")))
	peerKey        = base64.StdEncoding.EncodeToString(newPeerKey())
)

func newPeerKey() []byte {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return mustMarshalPublic(private.Public())
}

func mustMarshalPublic(public any) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	return der
}

// ofSpec makes a key one of another spec.
func ofSpec(spec KeySpec, usage KeyUsage) func(*Key) {
	return func(key *Key) {
		key.Spec, key.Usage = spec, usage
		for i := range key.Materials {
			key.Materials[i].Ref.Kind = key.purpose().kind
			key.Materials[i].Ref.Public = mustMarshalPublic(soundKey.Public())
		}
	}
}

// invoke calls a method of the service by its name, as the wire does.
func invoke(t *testing.T, s *Service, operation, body string) (any, error) {
	t.Helper()
	method := reflect.ValueOf(s).MethodByName(operation)
	require.True(t, method.IsValid(), "no method %s", operation)
	in := reflect.New(method.Type().In(2).Elem())
	require.NoError(t, json.Unmarshal([]byte(body), in.Interface()), "%s: %s", operation, body)
	out := method.Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(newRequest(operation)), in})
	err, _ := out[1].Interface().(error)
	return out[0].Interface(), err
}

// servedOperations gives the names of the methods that are operations.
func servedOperations() (names []string) {
	service, request := reflect.TypeFor[*Service](), reflect.TypeFor[*Request]()
	for i := range service.NumMethod() {
		if m := service.Method(i); m.Type.NumIn() == 4 && m.Type.In(2) == request {
			names = append(names, m.Name)
		}
	}
	return names
}

// permissions gives the operations of actions.go, read from its source.
func permissions(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "actions.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		if name, _ := pair.Key.(*ast.Ident); name != nil && name.Name == "permission" {
			permission, err := strconv.Unquote(pair.Value.(*ast.BasicLit).Value)
			require.NoError(t, err)
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(permission, "From"), "To"))
		}
		return true
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// tableStates are the states of the columns of the table; one column is for two.
var tableStates = [][]KeyState{
	{Enabled}, {DisabledState}, {PendingDeletion, PendingReplicaDeletion}, {PendingImport}, {Unavailable}, {Creating}, {Updating},
}

// footnote is what a footnote says of a failure; text is empty where it has none.
type footnote struct {
	code ErrorType
	text string
}

// stateTable is the published table with the inferred rows.
type stateTable struct {
	rows  map[string][]string // cells by operation
	notes map[string]footnote // by number
}

var noteLine = regexp.MustCompile("^- \\[(\\d+)\\] (?:(\\w+Exception)(?:: `<key ARN> ([^`]+)`)?)?")

func readStateTable(t *testing.T) stateTable {
	t.Helper()
	text, err := os.ReadFile(keyStatesFile)
	require.NoError(t, err)
	table := stateTable{map[string][]string{}, map[string]footnote{}}
	for _, line := range append(strings.Split(string(text), "\n"), inferredRows...) {
		if note := noteLine.FindStringSubmatch(line); note != nil {
			table.notes[note[1]] = footnote{ErrorType(note[2]), note[3]}
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if strings.HasPrefix(line, "| ") && cells[0] != "API" && cells[0] != "---" {
			require.Len(t, cells, 1+len(tableStates), line)
			require.NotContains(t, table.rows, cells[0])
			table.rows[cells[0]] = cells[1:]
		}
	}
	require.Len(t, table.notes, 15)
	return table
}

// noteNumber finds the footnotes of a cell.
var noteNumber = regexp.MustCompile(`\[(\d+)\]`)

// failure gives what a cell says of a key; nil for success.
func (table stateTable) failure(t *testing.T, cell string, call stateCall, state KeyState, origin Origin) *footnote {
	t.Helper()
	var notes []string
	for _, match := range noteNumber.FindAllStringSubmatch(cell, -1) {
		notes = append(notes, match[1])
	}
	note := ""
	switch rest := strings.Join(append([]string{strings.Fields(strings.ReplaceAll(cell, "[", " ["))[0]}, notes...), " "); rest {
	case "ok", "ok 12":
	case "N/A": // the table is older than the import of other than symmetric keys
		note = "5"
	case "? 10":
		if !call.leaving {
			note = "3"
		}
	case "X 2 3":
		note = "3"
	case "X 4 13":
		note = "4"
	case "? 7": // the notes 7, 8 and 9 are for keys of one origin
		note = either(origin == OriginExternal, "7", "")
	case "X 1 7":
		note = either(origin == OriginExternal, "7", "1")
	case "X 3 7":
		note = either(origin == OriginExternal, "7", "3")
	case "X 8 9":
		note = either(origin == OriginExternal, "8", "9")
	case "? 9", "ok 9":
		note = either(origin == OriginExternal, "", "9")
	default:
		require.Regexp(t, `^X \d+$`, rest, "a cell that the test does not understand")
		note = notes[0]
	}
	if note == "" {
		return nil
	}
	return table.text(t, note, state, origin)
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// text completes the text of a footnote.
func (table stateTable) text(t *testing.T, note string, state KeyState, origin Origin) *footnote {
	t.Helper()
	f := table.notes[note]
	switch note {
	case "6", "7", "9": // those without a text have that of 6, for the key's own origin
		f.text = strings.Replace(table.notes["6"].text, string(OriginExternal), string(origin), 1)
	case "8":
		f.text = table.notes["3"].text
	}
	if state == PendingReplicaDeletion {
		f.text = strings.Replace(f.text, "pending deletion", "pending replica deletion", 1)
	}
	require.NotEmpty(t, f.code)
	require.NotEmpty(t, f.text)
	return &f
}

// TestStateTableIsCovered holds the requests of this file against the methods of the service, the table of actions and
// the published table: none may have an operation that the others do not know.
func TestStateTableIsCovered(t *testing.T) {
	calls := map[string]bool{}
	for _, call := range stateCalls("", "") {
		calls[call.operation] = true
	}
	tested := slices.Sorted(maps.Keys(calls))
	require.ElementsMatch(t, append(slices.Clone(tested), keyless...), servedOperations())
	require.Equal(t, tested, permissions(t))
	require.ElementsMatch(t, append(slices.Clone(tested), unserved...), slices.Collect(maps.Keys(readStateTable(t).rows)))
}

// TestKeyStates compares every operation, for a key in every state and of both origins, with the published table.
func TestKeyStates(t *testing.T) {
	table := readStateTable(t)
	mine, err := json.Marshal(newBlob(t, firstKey))
	require.NoError(t, err)
	other, err := json.Marshal(newBlob(t, secondKey))
	require.NoError(t, err)
	for _, call := range stateCalls(strings.Trim(string(mine), `"`), strings.Trim(string(other), `"`)) {
		for column, cell := range table.rows[call.operation] {
			if cell == "N/A" && tableStates[column][0] != PendingImport {
				continue
			}
			for _, state := range tableStates[column] {
				for _, origin := range originsIn(state, cell, table.rows[call.operation]) {
					t.Run(strings.Join([]string{call.operation, call.what, string(state), string(origin)}, " "), func(t *testing.T) {
						want := table.failure(t, cell, call, state, origin)
						requireState(t, call, newStateKey(call, state, origin), want)
					})
				}
			}
		}
	}
}

// originsIn gives the origins of keys that a cell is about. Keys that wait for their import have one only; and where a row
// has note 9, its cells without it are about keys that can have imported material.
func originsIn(state KeyState, cell string, row []string) []Origin {
	forImport := strings.Contains(strings.Join(row, ""), "[9]")
	if state == PendingImport || forImport && !strings.Contains(cell, "[9]") {
		return []Origin{OriginExternal}
	}
	return []Origin{OriginKMS, OriginExternal}
}

func newStateKey(call stateCall, state KeyState, origin Origin) *Key {
	return newTestKey(firstKey, func(key *Key) {
		key.Origin, key.Policy = origin, defaultPolicy(testAccount)
		if state == PendingDeletion {
			key.Deletion = time.Now().Add(time.Hour)
		}
	}, inState(state), func(key *Key) {
		if call.edit != nil {
			call.edit(key)
		}
	})
}

// requireState sends a request about a key, which must fail as a footnote says, or not at all for nil.
func requireState(t *testing.T, call stateCall, key *Key, want *footnote) {
	t.Helper()
	s := newService(t, soundToken{}, func(cfg *Config) {
		cfg.Vault = hsm.Vault{Token: soundToken{}, Key: hsm.KeyRef{ID: "vault", Kind: hsm.AES256}}
	})
	body := call.body
	if call.prepare != nil {
		body = call.prepare(t, s)
	}
	put(t, s, key, newTestKey(secondKey))
	for name, id := range map[string]string{"alias/first": firstKey, "alias/second": secondKey} {
		require.NoError(t, s.update(t.Context(), func(r *recorder) error {
			return r.put(aliasRecords(testAccount, testRegion)+name, &Alias{Name: name, KeyID: id})
		}))
	}
	_, err := invoke(t, s, call.operation, body)
	if want == nil {
		require.NoError(t, err)
		return
	}
	var shown *Error
	require.ErrorAs(t, err, &shown)
	require.Equal(t, want.code, shown.Type)
	require.Equal(t, key.ARN()+" "+want.text, shown.Message)
}

// soundToken is a token on which everything succeeds. Its ciphertext is the plaintext.
type soundToken struct{ hsm.Token }

func (soundToken) GenerateKey(_ context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	return hsm.KeyRef{ID: "0123456789abcdef0123456789abcdef", Kind: r.Kind, Public: []byte("public")}, nil
}

func (soundToken) DestroyKey(context.Context, hsm.KeyRef) error { return nil }

func (soundToken) Encrypt(_ context.Context, _ hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	return hsm.Sealed{IV: [hsm.IVSize]byte{1}, Data: append(slices.Clone(plaintext), make([]byte, hsm.TagSize)...)}, nil
}

func (soundToken) Decrypt(_ context.Context, o hsm.Opening) ([]byte, error) {
	return slices.Clone(o.Sealed.Data[:len(o.Sealed.Data)-hsm.TagSize]), nil
}

func (soundToken) ReEncrypt(_ context.Context, o hsm.Opening, _ hsm.Sealing) (hsm.Sealed, error) {
	return o.Sealed, nil
}

func (soundToken) Random(context.Context, []byte) error { return nil }

func (soundToken) ImportRoutes(context.Context, hsm.KeyKind) (map[hsm.ImportWrap]hsm.Route, error) {
	return map[hsm.ImportWrap]hsm.Route{hsm.OAEPSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.OnToken}, nil
}

// Support says that the token does whatever there is.
func (soundToken) Support(_ context.Context, kind hsm.KeyKind) (hsm.Support, error) {
	support := hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{}}
	for _, purposes := range specs {
		for _, p := range purposes {
			for _, algorithm := range p.algorithms {
				if p.kind == kind {
					support.Algorithms[algorithm] = hsm.OnToken
				}
			}
		}
	}
	return support, nil
}

func (soundToken) Sign(context.Context, hsm.Signing) ([]byte, error) { return []byte("signature"), nil }

func (soundToken) MAC(_ context.Context, _ hsm.KeyRef, _ hsm.Algorithm, message []byte) ([]byte, error) {
	return slices.Clone(message), nil
}

func (soundToken) DeriveSecret(context.Context, hsm.KeyRef, []byte) ([]byte, error) {
	return []byte("secret"), nil
}

func (soundToken) TryDataPair(context.Context, hsm.KeyKind) error { return nil }

func (soundToken) GenerateDataPair(context.Context, hsm.KeyKind) (hsm.DataPair, error) {
	return hsm.DataPair{Private: []byte("private"), Public: []byte("public")}, nil
}

// ImportKey gives the material that newTestKey gives firstKey, so that it can be imported again.
func (soundToken) ImportKey(_ context.Context, r hsm.ImportRequest) (hsm.Imported, error) {
	return hsm.Imported{
		Key:         hsm.KeyRef{ID: "fedcba9876543210fedcba9876543210", Kind: r.Kind},
		Fingerprint: [32]byte(testMaterial(firstKey)),
	}, nil
}

// usageOf says what keys the cryptographic operations are for. ReEncrypt has its tests elsewhere.
var usageOf = map[string]KeyUsage{
	"Encrypt": EncryptDecrypt, "Decrypt": EncryptDecrypt, "GenerateDataKey": EncryptDecrypt, "GenerateDataKeyWithoutPlaintext": EncryptDecrypt,
	"GenerateDataKeyPair": EncryptDecrypt, "GenerateDataKeyPairWithoutPlaintext": EncryptDecrypt,
	"Sign": SignVerify, "Verify": SignVerify, "GenerateMac": GenerateVerifyMac, "VerifyMac": GenerateVerifyMac, "DeriveSharedSecret": KeyAgreement,
}

// TestUsageOfCryptographicOperations uses a key that is for something else, with requests that make no sense for it otherwise:
// the usage comes first.
func TestUsageOfCryptographicOperations(t *testing.T) {
	mine, err := json.Marshal(newBlob(t, firstKey))
	require.NoError(t, err)
	tested := map[string]bool{}
	for _, call := range stateCalls(strings.Trim(string(mine), `"`), "") {
		want, cryptographic := usageOf[call.operation]
		if !cryptographic {
			continue
		}
		tested[call.operation] = true
		for usage, spec := range map[KeyUsage]KeySpec{
			EncryptDecrypt: SymmetricDefault, SignVerify: "RSA_2048", GenerateVerifyMac: "HMAC_256", KeyAgreement: "ECC_NIST_P256",
		} {
			if usage == want {
				continue
			}
			s := newService(t, fakeToken{})
			put(t, s, newTestKey(firstKey, func(key *Key) { key.Usage, key.Spec = usage, spec }))
			_, err := invoke(t, s, call.operation, call.body)
			requireError[Empty](t, nil, err, InvalidKeyUsage, newTestKey(firstKey).ARN()+" key usage is "+string(usage)+" which is not valid for "+call.operation+".")
		}
	}
	require.Len(t, tested, len(usageOf))
}

// TestUnknownState has a record in a state that no table knows: nothing is allowed.
func TestUnknownState(t *testing.T) {
	require.Equal(t, InvalidState, TypeOf(anyState.check(newTestKey(firstKey, inState("Melting")))))
}
