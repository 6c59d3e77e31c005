package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// loaded is what Load reads a text as, by Load's own judgement.
func loaded(kind Kind, text string) (*Document, error) {
	if _, err := Load(kind, text); err != nil {
		return nil, err
	}
	return parsePolicy(text, kind)
}

// parse reads a policy that must be well-formed.
func parse(t testing.TB, text string) *Document {
	t.Helper()
	d, err := loaded(KeyPolicy, text)
	require.NoError(t, err, text)
	return d
}

// withStatement is a policy of one statement with more members than the required ones.
func withStatement(more string) string {
	return `{"Statement":[{"Effect":"Allow","Principal":"*"` + more + `}]}`
}

func TestParseKeyPolicy(t *testing.T) {
	d := parse(t, ` {
		"Version": "2012-10-17", "Id": "the \u00e9 id",
		"Statement": [ {
			"Sid": "Enable IAM User Permissions", "Effect": "Allow",
			"Principal": { "AWS": ["111122223333", "arn:aws:iam::444455556666:user/a/b/c"], "Service": "s3.amazonaws.com" },
			"Action": "kms:*", "Resource": "*"
		}, {
			"Effect": "Deny", "NotPrincipal": {"AWS": "*"}, "NotAction": ["KMS:Describe*", "*"], "NotResource": ["arn:aws:kms:*:*:key/?"],
			"Condition": {
				"StringEqualsIfExists": {"kms:ViaService": ["a", "b"], "aws:PrincipalTag/x y": "c"},
				"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": "*"}, "ForAllValues:NumericLessThan": {"x:y": [1, 2.50, -3e7]},
				"Bool": {"aws:SecureTransport": false}, "Null": {"oidc.example.com/id/1:sub": "true"}
			}
		} ]
	}`+"\r\n\t")
	require.Equal(t, &Document{Version: Version2012, ID: "the é id", Statements: []Statement{
		{
			SID: "Enable IAM User Permissions", Effect: Allow,
			Principals: Principals{
				AWS:     []string{"arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:user/a/b/c"},
				Service: []string{"s3.amazonaws.com"},
			},
			Actions: Patterns{List: []string{"kms:*"}}, Resources: Patterns{List: []string{"*"}},
		}, {
			Effect: Deny, Principals: Principals{Except: true, AWS: []string{Everybody}},
			Actions:   Patterns{Except: true, List: []string{"KMS:Describe*", "*"}},
			Resources: Patterns{Except: true, List: []string{"arn:aws:kms:*:*:key/?"}},
			Conditions: []Condition{
				{Operator: "StringEquals", IfExists: true, Key: "kms:ViaService", Values: []string{"a", "b"}},
				{Operator: "StringEquals", IfExists: true, Key: "aws:PrincipalTag/x y", Values: []string{"c"}},
				{Quantifier: ForAnyValue, Operator: "StringLike", IfExists: true, Key: "aws:TagKeys", Values: []string{"*"}},
				{Quantifier: ForAllValues, Operator: "NumericLessThan", Key: "x:y", Values: []string{"1", "2.50", "-3e7"}},
				{Operator: "Bool", Key: "aws:SecureTransport", Values: []string{"false"}},
				{Operator: "Null", Key: "oidc.example.com/id/1:sub", Values: []string{"true"}},
			},
		},
	}}, d)
}

func TestParseKeyPolicyOfOneStatement(t *testing.T) {
	require.Equal(t, &Document{Version: Version2008, Statements: []Statement{{Effect: Allow, Principals: Principals{AWS: []string{"*"}}}}},
		parse(t, withStatement("")), "without Version, Action and Resource")
	require.Equal(t, parse(t, withStatement("")), parse(t, `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"*"}}}`))
}

// TestParseKeyPolicyAccepts has what is unusual and yet right.
func TestParseKeyPolicyAccepts(t *testing.T) {
	for _, text := range []string{
		`{"Statement":[{"Sid":"","Effect":"Deny","Principal":"*"},{"Sid":"","Effect":"Deny","Principal":"*"}]}`,
		withStatement(`,"Condition":{}`),
		withStatement(`,"Condition":{"StringEquals":{}}`),
		withStatement(`,"Action":"kms:Encrypt","Resource":"arn:aws:s3:::bucket/${aws:username}:*"`),
		withStatement(`,"Action":["*","s3:Get?bject","*:*"]`),
		withStatement(`,"NotAction":"*:Encrypt"`),
		withStatement(`,"Condition":{"StringEquals":{"aws:SourceVpce":[]}}`),
		withStatement(`,"Sid":"\ud83d\ude00 \u0000"`),
		withStatement(`,"Sid":"` + strings.Repeat("s", 100_000) + `"`),
	} {
		parse(t, text)
	}
	for operator := range operators {
		for _, quantifier := range []string{"", "ForAllValues:", "ForAnyValue:"} {
			parse(t, withStatement(`,"Condition":{"`+quantifier+operator+`":{"aws:x":`+anyValue(operator)+`}}`))
		}
	}
	require.Len(t, operators, 27)
}

// anyValue gives a value, in JSON, that suits an operator; anyText gives the text in it.
func anyValue(operator string) string { return `"` + anyText(operator) + `"` }

func anyText(operator string) string {
	switch operators[operator].comparison {
	case ofBools, existence:
		return "True"
	case ofBinaries:
		return "YQ=="
	case inNetwork:
		return "10.0.0.0/8"
	}
	return "2026"
}

func TestParseKeyPolicyRefuses(t *testing.T) {
	const invalidJSON = "The policy is not valid JSON."
	long := strings.Repeat("x", 201)
	for text, want := range map[string]string{
		"":                            invalidJSON,
		" ":                           invalidJSON,
		"{":                           invalidJSON,
		`{"Statement":[]}x`:           invalidJSON,
		`{"Statement":[]}{}`:          invalidJSON,
		`{"Statement":[],}`:           invalidJSON,
		`{'Statement':[]}`:            invalidJSON,
		"{\"Id\":\"\xff\"}":           invalidJSON,
		"\ufeff{}":                    invalidJSON,
		strings.Repeat("[", 100_000):  invalidJSON,
		`[]`:                          "The policy must be an object.",
		`null`:                        "The policy must be an object.",
		`"{}"`:                        "The policy must be an object.",
		`{}`:                          "The policy has no Statement.",
		`{"Version":"2012-10-17"}`:    "The policy has no Statement.",
		`{"statement":[]}`:            `The policy has the unknown element "statement".`,
		`{"Id":"a","` + long + `":1}`: `The policy has the unknown element "` + long[:200] + `...".`,
		`{"Id":"a","Id":"a"}`:         `The element "Id" appears twice.`,
		`{"Id":"a","I\u0064":"a"}`:    `The element "Id" appears twice.`,
		`{"\ud800":1}`:                "The name of an element contains an invalid character.",
		`{"Id":7}`:                    "Id must be a string.",
		`{"Id":null}`:                 "Id must be a string.",
		`{"Id":"\udc00"}`:             "Id contains an invalid character.",
		`{"Version":2012}`:            "Version must be a string.",
		`{"Version":"2012-10-18"}`:    `The policy has the unknown Version "2012-10-18".`,
		`{"Version":""}`:              `The policy has the unknown Version "".`,
		`{"Statement":[]}`:            "Statement must not be empty.",
		`{"Statement":null}`:          "A statement must be an object.",
		`{"Statement":"*"}`:           "A statement must be an object.",
		`{"Statement":[7]}`:           "A statement must be an object.",
		`{"Statement":[[{}]]}`:        "A statement must be an object.",
		`{"Statement":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: "A statement must be an object.",
		`{"Statement":{}}`:                 "A statement has no Effect.",
		`{"Statement":{"Principal":"*"}}`:  "A statement has no Effect.",
		`{"Statement":{"Effect":"Allow"}}`: "Policy contains a statement with no principal.",
		`{"Statement":{"Effect":"allow"}}`: `Effect must be Allow or Deny, not "allow".`,
		`{"Statement":{"Effect":true}}`:    "Effect must be a string.",
		`{"Statement":[{"Sid":"a","Effect":"Allow","Principal":"*"},{"Sid":"a","Effect":"Deny","Principal":"*"}]}`: "Statement IDs (SID) in a single policy must be unique.",

		withStatement(`,"Sid":[]`):                         "Sid must be a string.",
		withStatement(`,"action":"kms:*"`):                 `A statement has the unknown element "action".`,
		withStatement(`,"Effect":"Deny"`):                  `The element "Effect" appears twice.`,
		withStatement(`,"NotPrincipal":"*"`):               "A statement must not have both Principal and NotPrincipal.",
		withStatement(`,"Action":"*","NotAction":"*"`):     "A statement must not have both Action and NotAction.",
		withStatement(`,"NotResource":"*","Resource":"*"`): "A statement must not have both Resource and NotResource.",

		withStatement(`,"Action":[]`):                "Action must not be empty.",
		withStatement(`,"NotAction":[]`):             "NotAction must not be empty.",
		withStatement(`,"Action":{}`):                "Action must be a string.",
		withStatement(`,"Action":[["kms:*"]]`):       "Action must be a string.",
		withStatement(`,"Action":["kms:*",null]`):    "Action must be a string.",
		withStatement(`,"Action":""`):                `Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.`,
		withStatement(`,"Action":"Encrypt"`):         `Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.`,
		withStatement(`,"Action":"kms:"`):            `The action "kms:" is not valid.`,
		withStatement(`,"NotAction":["*","k*:*"]`):   "Vendor k* is not valid",
		withStatement(`,"Action":" kms:Encrypt"`):    "Vendor  kms is not valid",
		withStatement(`,"Action":":Encrypt"`):        "Vendor  is not valid",
		withStatement(`,"Action":"kms:Encrypt "`):    `The action "kms:Encrypt " is not valid.`,
		withStatement(`,"Action":"kms:Encrypt:a"`):   "Actions/Condition can contain only one colon.",
		withStatement(`,"Resource":[]`):              "Resource must not be empty.",
		withStatement(`,"Resource":7`):               "Resource must be a string.",
		withStatement(`,"Resource":""`):              `Resource  must be in ARN format or "*".`,
		withStatement(`,"Resource":"arn:aws:kms:*"`): `Resource arn:aws:kms:* must be in ARN format or "*".`,
		withStatement(`,"NotResource":"key/x"`):      `Resource key/x must be in ARN format or "*".`,

		withStatement(`,"Condition":[]`):                                           "Condition must be an object.",
		withStatement(`,"Condition":{"Bool":"x"}`):                                 "A condition operator must be an object.",
		withStatement(`,"Condition":{"Bool":{},"Bool":{}}`):                        `The element "Bool" appears twice.`,
		withStatement(`,"Condition":{"Bool":{"a:b":"x","a:b":"x"}}`):               `The element "a:b" appears twice.`,
		withStatement(`,"Condition":{"Bool":{"a:b":{}}}`):                          "The value of a condition must be a string, a number or a Boolean.",
		withStatement(`,"Condition":{"Bool":{"a:b":null}}`):                        "The value of a condition must be a string, a number or a Boolean.",
		withStatement(`,"Condition":{"Bool":{"a:b":[["x"]]}}`):                     "The value of a condition must be a string, a number or a Boolean.",
		withStatement(`,"Condition":{"Bool":{"a:b":"\ud800x"}}`):                   "The value of a condition contains an invalid character.",
		withStatement(`,"Condition":{"Bool":{"SecureTransport":"x"}}`):             `Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.`,
		withStatement(`,"Condition":{"Bool":{":x":"x"}}`):                          `Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.`,
		withStatement(`,"Condition":{"Bool":{"aws:":"x"}}`):                        `Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.`,
		withStatement(`,"Condition":{"StringEqual":{"a:b":"x"}}`):                  `Invalid condition operator: "StringEqual".`,
		withStatement(`,"Condition":{"stringequals":{"a:b":"x"}}`):                 `Invalid condition operator: "stringequals".`,
		withStatement(`,"Condition":{"NullIfExists":{"a:b":"x"}}`):                 `Invalid condition operator: "NullIfExists".`,
		withStatement(`,"Condition":{"IfExists":{"a:b":"x"}}`):                     `Invalid condition operator: "IfExists".`,
		withStatement(`,"Condition":{"BoolIfExistsIfExists":{"a:b":"x"}}`):         `Invalid condition operator: "BoolIfExistsIfExists".`,
		withStatement(`,"Condition":{"ForSomeValues:Bool":{"a:b":"x"}}`):           `Invalid condition operator: "ForSomeValues:Bool".`,
		withStatement(`,"Condition":{"ForAllValues:":{"a:b":"x"}}`):                `Invalid condition operator: "ForAllValues:".`,
		withStatement(`,"Condition":{"ForAllValues:ForAnyValue:Bool":{"a:b":""}}`): `Invalid condition operator: "ForAllValues:ForAnyValue:Bool".`,
		withStatement(`,"Condition":{"":{"a:b":"x"}}`):                             `Invalid condition operator: "".`,
	} {
		d, err := loaded(KeyPolicy, text)
		require.Nil(t, d, text)
		require.Equal(t, MalformedError(want), err, text)
	}
}

func TestPrincipals(t *testing.T) {
	const account, invalid = "111122223333", "Policy contains a statement with one or more invalid principals."
	arn := "arn:aws:iam::" + account + ":"
	good := map[string][]string{
		"AWS": {
			"*", account, arn + "root", arn + "user/a", arn + "user/" + strings.Repeat("u", 64), arn + "role/p/q/r_+=,.@-",
			arn + "role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef",
			"arn:aws:sts::" + account + ":assumed-role/r/session", "arn:aws:sts::" + account + ":federated-user/bob",
		},
		"Service":       {"s3.amazonaws.com", "logs.us-east-1.amazonaws.com", "resource-explorer-2.amazonaws.com"},
		"Federated":     {"cognito-identity.amazonaws.com", "accounts.google.com", arn + "saml-provider/x", arn + "oidc-provider/oidc.eks.amazonaws.com/id/A1"},
		"CanonicalUser": {strings.Repeat("0123456789abcdef", 4)},
	}
	bad := map[string][]string{
		"AWS": {
			"", "x", account + "0", account[1:], "AIDAJQABLZS4A3QDU576Q", arn, arn + "group/g", arn + "user/", arn + "user/*", arn + "user/a*", arn + "role/?",
			arn + "role/*/a", arn + "role//a", arn + "root/a", arn + "user/" + strings.Repeat("u", 65), arn + "user/a b", arn + "saml-provider/x",
			"arn:aws:iam::*:root", "arn:aws:iam:us-east-1:" + account + ":root", "arn:aws-cn:iam::" + account + ":root", "arn:aws:iam::" + account[1:] + ":root",
			"arn:aws:sts::" + account + ":assumed-role/r", "arn:aws:sts::" + account + ":assumed-role/r/*", "arn:aws:kms:us-east-1:" + account + ":key/x",
			arn + "root\n", " " + arn + "root", "s3.amazonaws.com",
		},
		"Service":       {"", "*", "s3", "S3.amazonaws.com", "s3.amazonaws.com.", "*.amazonaws.com", account},
		"Federated":     {"", "*", arn + "role/r", arn + "saml-provider/", "Accounts.google.com"},
		"CanonicalUser": {"", "*", strings.Repeat("A", 64), strings.Repeat("a", 63), account},
		"Group":         {"x"},
		"aws":           {"*"},
	}
	policy := func(kind string, value any) string {
		text, err := json.Marshal(map[string]any{"Statement": map[string]any{"Effect": "Allow", "Principal": map[string]any{kind: value}}})
		require.NoError(t, err)
		return string(text)
	}
	for kind, values := range good {
		d := parse(t, policy(kind, values))
		p := d.Statements[0].Principals
		require.Len(t, map[string][]string{"AWS": p.AWS, "Service": p.Service, "Federated": p.Federated, "CanonicalUser": p.CanonicalUser}[kind], len(values))
		for _, value := range values {
			parse(t, policy(kind, value))
		}
	}
	for kind, values := range bad {
		for _, value := range values {
			_, err := loaded(KeyPolicy, policy(kind, []string{value}))
			require.Equal(t, MalformedError(invalid), err, value)
			if len(good[kind]) > 0 {
				_, err = loaded(KeyPolicy, policy(kind, []string{good[kind][0], value}))
				require.Equal(t, MalformedError(invalid), err, value)
			}
		}
	}
	for text, want := range map[string]string{
		`"` + account + `"`:         invalid,
		`"` + arn + `root"`:         invalid,
		`""`:                        invalid,
		`{}`:                        "Policy contains a statement with no principal.",
		`["*"]`:                     "Principal must be a string.",
		`null`:                      "Principal must be a string.",
		`{"AWS":[]}`:                "AWS must not be empty.",
		`{"AWS":7}`:                 "AWS must be a string.",
		`{"AWS":{"AWS":"*"}}`:       "AWS must be a string.",
		`{"AWS":"*","AWS":"*"}`:     `The element "AWS" appears twice.`,
		`{"AWS":"*","Service":"*"}`: invalid,
		`{"AWS":"*","Users":"*"}`:   invalid,
	} {
		_, err := loaded(KeyPolicy, `{"Statement":{"Effect":"Allow","Principal":`+text+`}}`)
		require.Equal(t, MalformedError(want), err, text)
	}
}

// encode writes a document in the longest form.
func encode(d *Document) string {
	name := func(not bool, element string) string {
		if not {
			return "Not" + element
		}
		return element
	}
	statements := make([]any, len(d.Statements))
	for i, s := range d.Statements {
		m := map[string]any{"Sid": s.SID, "Effect": s.Effect}
		principals := map[string]any{}
		for kind, list := range map[string][]string{"AWS": s.Principals.AWS, "Service": s.Principals.Service, "Federated": s.Principals.Federated, "CanonicalUser": s.Principals.CanonicalUser} {
			if list != nil {
				principals[kind] = list
			}
		}
		if d.Kind != IdentityPolicy {
			m[name(s.Principals.Except, "Principal")] = principals
		}
		if s.Actions.List != nil {
			m[name(s.Actions.Except, "Action")] = s.Actions.List
		}
		if s.Resources.List != nil {
			m[name(s.Resources.Except, "Resource")] = s.Resources.List
		}
		operators := map[string]map[string][]string{}
		for _, c := range s.Conditions {
			operator := c.Operator
			if c.Quantifier != "" {
				operator = string(c.Quantifier) + ":" + operator
			}
			if c.IfExists {
				operator += "IfExists"
			}
			if operators[operator] == nil {
				operators[operator] = map[string][]string{}
			}
			operators[operator][c.Key] = c.Values
		}
		m["Condition"] = operators
		statements[i] = m
	}
	text, _ := json.Marshal(map[string]any{"Version": d.Version, "Id": d.ID, "Statement": statements})
	return string(text)
}

// sortConditions makes an order of conditions that does not depend on the text.
func sortConditions(all []Condition) {
	slices.SortFunc(all, func(a, b Condition) int {
		return cmp.Or(cmp.Compare(a.Operator, b.Operator), cmp.Compare(a.Quantifier, b.Quantifier), cmp.Compare(a.Key, b.Key),
			cmp.Compare(fmt.Sprint(a.IfExists), fmt.Sprint(b.IfExists)))
	})
}
