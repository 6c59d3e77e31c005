package kms

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseKeyName(t *testing.T) {
	const mrk = "mrk-1234abcd12ab34cd56ef1234567890ab"
	here := func(id, alias string) keyName {
		return keyName{account: testAccount, region: testRegion, id: id, alias: alias}
	}
	there := func(id, alias string) keyName {
		return keyName{account: otherAccount, region: testRegion, id: id, alias: alias}
	}
	for text, want := range map[string]keyName{
		firstKey: here(firstKey, ""),
		mrk:      here(mrk, ""),
		"arn:aws:kms:us-east-1:111122223333:key/" + firstKey: here(firstKey, ""),
		"arn:aws:kms:us-east-1:444455556666:key/" + mrk:      there(mrk, ""),
		"alias/name":        here("", "alias/name"),
		"alias/a/b:c":       here("", "alias/a/b:c"),
		"alias/":            here("", "alias/"),
		"alias/" + firstKey: here("", "alias/"+firstKey),
		"arn:aws:kms:us-east-1:111122223333:alias/name": here("", "alias/name"),
		"arn:aws:kms:us-east-1:444455556666:alias/a:b":  there("", "alias/a:b"),
	} {
		name, err := parseKeyName(newRequest("Encrypt"), text)
		require.NoError(t, err, text)
		require.Equal(t, want, name, text)
		again, err := parseKeyName(newRequest("Encrypt"), name.arn())
		require.NoError(t, err, text)
		require.Equal(t, name, again, "an ARN names what it was made of")
	}
}

func TestParseKeyNameRefuses(t *testing.T) {
	const prefix = "arn:aws:kms:us-east-1:111122223333:"
	for _, test := range []struct {
		code    ErrorType
		message string // in which ? stands for the name
		names   []string
	}{
		{NotFound, "Invalid keyId '?'", []string{
			"", "key", "key/" + firstKey, "Alias/name", "alias", "ARN:aws:kms", firstKey + " ", strings.ReplaceAll(firstKey, "-", ""), strings.ReplaceAll(firstKey, "1", "A"),
			strings.ReplaceAll(firstKey, "1", "g"), "mrk-", "mrk-" + firstKey, "mrk-1234ABCD12ab34cd56ef1234567890ab", "1234abcd12ab34cd56ef1234567890ab",
		}},
		{InvalidArn, "Invalid arn ?", []string{
			"arn:", "arn:aws", "arn:aws:kms:us-east-1:111122223333", prefix, prefix + "key", prefix + firstKey, prefix + "Key/" + firstKey, prefix + ":key/" + firstKey,
			"arn::kms:us-east-1:111122223333:key/" + firstKey, "arn:aws-cn:kms:us-east-1:111122223333:key/" + firstKey, "arn:aws:KMS:us-east-1:111122223333:key/" + firstKey,
			"arn:aws:kms:us-east-1::key/" + firstKey, "arn:aws:kms:us-east-1:11112222333:key/" + firstKey, "arn:aws:kms:us-east-1:1111222233334:key/" + firstKey,
			"arn:aws:kms:us-east-1:11112222333x:key/" + firstKey, "arn:aws:kms:us-east-1:11112222333٣:key/" + firstKey,
		}},
		{NotFound, "Invalid arn eu-west-1", []string{
			"arn:aws:kms:eu-west-1:111122223333:key/" + firstKey, "arn:aws:kms:eu-west-1:111122223333:key/no-id",
			"arn:aws:kms:eu-west-1:444455556666:alias/name",
		}},
		{NotFound, "Invalid arn ", []string{"arn:aws:kms::111122223333:key/" + firstKey}},
		{NotFound, "Invalid keyId ''", []string{prefix + "key/"}},
		{NotFound, "Invalid keyId 'alias/name'", []string{prefix + "key/alias/name"}},
	} {
		for _, name := range test.names {
			_, err := parseKeyName(newRequest("Encrypt"), name)
			requireError[Empty](t, nil, err, test.code, strings.ReplaceAll(test.message, "?", name))
		}
	}
}
