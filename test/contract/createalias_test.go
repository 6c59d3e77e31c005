package contract

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// freeAlias gives an alias name that no test has used.
func freeAlias() string { return "alias/" + uuid.NewString() }

// keyOf gives the ARN of the key that Encrypt uses for a name.
func keyOf(t testing.TB, s *kmstest.Server, name string) string {
	t.Helper()
	out, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &name, Plaintext: []byte("x")})
	require.NoError(t, err)
	return *out.KeyId
}

// aliasesOf gives the names of a key's aliases.
func aliasesOf(t testing.TB, s *kmstest.Server, keyID string) []string {
	t.Helper()
	return column(list(t, accept(t, s, "ListAliases", object(t, "KeyId", keyID, "Limit", 100)), "Aliases"), "AliasName")
}

func TestCreateAlias(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, target := range []func(id string) string{func(id string) string { return id }, kmstest.KeyARN} {
			id, name := s.NewKey(t), freeAlias()
			before := float64(time.Now().UnixMilli()) / 1000
			s.Post(t, "Encrypt", object(t, "KeyId", name, "Plaintext", []byte("x"))).
				RequireRefusal(t, "NotFoundException", "Alias "+kmstest.AliasARN(name)+" is not found.")
			perform(t, s, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", target(id)))
			after := float64(time.Now().UnixMilli()) / 1000
			require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, name), "the very next request")
			require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, kmstest.AliasARN(name)))

			answer := accept(t, s, "ListAliases", object(t, "KeyId", id))
			entry := list(t, answer, "Aliases")[0]
			require.Equal(t, members{"Truncated": false, "Aliases": []any{members{
				"AliasArn": kmstest.AliasARN(name), "AliasName": name, "TargetKeyId": id,
				"CreationDate": entry["CreationDate"], "LastUpdatedDate": entry["CreationDate"],
			}}}, answer)
			require.GreaterOrEqual(t, entry["CreationDate"], before)
			require.LessOrEqual(t, entry["CreationDate"], after)
		}
	})
}

func TestCreateAliasSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, name := s.NewKey(t), freeAlias()
		_, err := s.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &id})
		require.NoError(t, err)
		_, err = s.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &id})
		kmstest.RequireError(t, err, "AlreadyExistsException", "An alias with the name "+kmstest.AliasARN(name)+" already exists")
		_, err = s.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias"), TargetKeyId: &id})
		kmstest.RequireError(t, err, "ValidationException", needsPrefix)
	})
}

const (
	needsPrefix  = `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`
	aliasCharset = "satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"
	reservedName = "The prefix alias/aws/ is reserved for AWS managed keys."
)

// badAliasNames are names that no operation on aliases takes, with the answer.
var badAliasNames = []struct{ name, code, message string }{
	{"no-prefix", "ValidationException", needsPrefix},
	{"alias", "ValidationException", needsPrefix},
	{"Alias/x", "ValidationException", needsPrefix},
	{"/alias/x", "ValidationException", needsPrefix},
	{"arn:aws:kms:us-east-1:111122223333:alias/x", "ValidationException", needsPrefix},
	{"alias/", "InvalidAliasNameException", "alias/ is not a valid alias name."},
	{"alias/a:b", "InvalidAliasNameException", "alias/a:b is not a valid alias name."},
	{"alias/aws/", "InvalidAliasNameException", reservedName},
	{"alias/aws/s3", "InvalidAliasNameException", reservedName},
	{"alias/a b", "ValidationException", violated("alias/a b", "aliasName", aliasCharset)},
	{"alias/a.b", "ValidationException", violated("alias/a.b", "aliasName", aliasCharset)},
	{"alias/ä", "ValidationException", violated("alias/ä", "aliasName", aliasCharset)},
	{"alias/x\n", "ValidationException", violated("alias/x\n", "aliasName", aliasCharset)},
	{"alias/" + strings.Repeat("n", 251), "ValidationException", violated("alias/"+strings.Repeat("n", 251), "aliasName", "have length less than or equal to 256")},
	{"", "ValidationException", "2 validation errors detected: Value '' at 'aliasName' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
		"Value '' at 'aliasName' failed to satisfy constraint: Member must " + aliasCharset},
}

// requireAliasNameChecks checks the answers of an operation to names that cannot be those of an alias.
func requireAliasNameChecks(t *testing.T, s *kmstest.Server, operation string, pairs ...any) {
	t.Helper()
	for _, test := range badAliasNames {
		s.Post(t, operation, object(t, append(pairs, "AliasName", test.name)...)).RequireRefusal(t, test.code, test.message)
	}
	s.Post(t, operation, object(t, append(pairs, "AliasName", 1)...)).RequireRefusal(t, "SerializationException", "NUMBER_VALUE can not be converted to a String")
	s.Post(t, operation, object(t, pairs...)).RequireRefusal(t, "ValidationException", missing("aliasName"))
}

func TestCreateAliasNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		requireAliasNameChecks(t, s, "CreateAlias", "TargetKeyId", id)
		require.Empty(t, aliasesOf(t, s, id))
		names := []string{
			"alias/-", "alias/AZaz09/_-", "alias/aws", "alias/aws-x", "alias/awsx/y", "alias/" + strings.Repeat("n", 250),
			"alias/x", "alias/x/", "alias/x//y", "alias/x/y", "alias/" + absentKey,
		}
		for _, name := range names {
			perform(t, s, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", id))
			require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, name))
		}
		require.ElementsMatch(t, names, aliasesOf(t, s, id))
		for _, name := range names {
			perform(t, s, "DeleteAlias", object(t, "AliasName", name))
		}
	})
}

func TestCreateAliasRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		name := freeAlias()
		requireKeyNames(t, s, "CreateAlias", "targetKeyId", false, func(key string) string { return `{"AliasName":"` + name + `","TargetKeyId":` + key + `}` })
		s.Post(t, "CreateAlias", object(t, "AliasName", name)).RequireRefusal(t, "ValidationException", missing("targetKeyId"))
		s.Post(t, "CreateAlias", "{}").RequireRefusal(t, "ValidationException",
			"2 validation errors detected: Value at 'aliasName' failed to satisfy constraint: Member must not be null; "+
				"Value at 'targetKeyId' failed to satisfy constraint: Member must not be null")
		s.Post(t, "DescribeKey", object(t, "KeyId", name)).RequireRefusal(t, "NotFoundException", "Alias "+kmstest.AliasARN(name)+" is not found.")
	})
}

func TestCreateAliasTwice(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		name := newAlias(t, s, id)
		for _, target := range []string{id, other} {
			s.Post(t, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", target)).
				RequireRefusal(t, "AlreadyExistsException", "An alias with the name "+kmstest.AliasARN(name)+" already exists")
		}
		require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, name))
		require.Empty(t, aliasesOf(t, s, other))
		perform(t, s, "DeleteAlias", object(t, "AliasName", name))
		perform(t, s, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", other))
		require.Equal(t, kmstest.KeyARN(other), keyOf(t, s, name))
	})
}

// TestAliasQuota checks that a key has 50 aliases at most, by whichever operation it gets them.
func TestAliasQuota(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		var names []string
		for range 50 {
			names = append(names, newAlias(t, s, id))
		}
		spare := newAlias(t, s, other)
		full := "The key " + kmstest.KeyARN(id) + " has the maximum number of aliases, 50."
		s.Post(t, "CreateAlias", object(t, "AliasName", freeAlias(), "TargetKeyId", id)).RequireRefusal(t, "LimitExceededException", full)
		s.Post(t, "UpdateAlias", object(t, "AliasName", spare, "TargetKeyId", id)).RequireRefusal(t, "LimitExceededException", full)
		s.Post(t, "CreateAlias", object(t, "AliasName", names[0], "TargetKeyId", id)).
			RequireRefusal(t, "AlreadyExistsException", "An alias with the name "+kmstest.AliasARN(names[0])+" already exists")
		perform(t, s, "UpdateAlias", object(t, "AliasName", names[0], "TargetKeyId", id)) // adds none
		require.ElementsMatch(t, names, aliasesOf(t, s, id))

		perform(t, s, "UpdateAlias", object(t, "AliasName", names[0], "TargetKeyId", other))
		perform(t, s, "UpdateAlias", object(t, "AliasName", spare, "TargetKeyId", id))
		s.Post(t, "CreateAlias", object(t, "AliasName", freeAlias(), "TargetKeyId", id)).RequireRefusal(t, "LimitExceededException", full)
		perform(t, s, "DeleteAlias", object(t, "AliasName", spare))
		newAlias(t, s, id)
		require.Len(t, aliasesOf(t, s, id), 50)
	})
}
