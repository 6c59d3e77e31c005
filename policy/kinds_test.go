package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// oneStatement is a policy of one statement that has these members besides Effect.
func oneStatement(version, members string) string {
	return `{"Version":"` + version + `","Statement":[{"Effect":"Allow",` + members + `}]}`
}

func TestParseIdentityPolicy(t *testing.T) {
	const what = `"Action":"kms:*","Resource":"*"`
	d, err := loaded(IdentityPolicy, oneStatement("2012-10-17", `"Sid":"A1",`+what))
	require.NoError(t, err)
	require.Equal(t, &Document{Kind: IdentityPolicy, Version: Version2012, Statements: []Statement{
		{SID: "A1", Effect: Allow, Actions: Patterns{List: []string{"kms:*"}}, Resources: Patterns{List: []string{"*"}}},
	}}, d)
	for members, want := range map[string]string{
		`"Principal":"*",` + what:                    "Policy document should not specify a principal.",
		`"NotPrincipal":{"AWS":"*"},` + what:         "Policy document should not specify a principal.",
		`"Resource":"*"`:                             "Policy statement must contain actions.",
		`"Action":"kms:*"`:                           "Policy statement must contain resources.",
		`"Sid":"not alphanumeric",` + what:           "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
		`"Action":"kms:*","Resource":"key/1"`:        `Resource key/1 must be in ARN format or "*".`,
		what + `,"Condition":{"Strange":{"a:b":""}}`: "Syntax errors in policy.",
	} {
		d, err := loaded(IdentityPolicy, oneStatement("2012-10-17", members))
		require.Nil(t, d, members)
		require.Equal(t, MalformedError(want), err, members)
	}
	for _, members := range []string{`"NotAction":"kms:*","Resource":"*"`, `"Action":"kms:*","NotResource":"*"`, `"Sid":"",` + what} {
		_, err := loaded(IdentityPolicy, oneStatement("2008-10-17", members))
		require.NoError(t, err, members)
	}
}

func TestParseTrustPolicy(t *testing.T) {
	const who = `"Principal":{"AWS":"` + ours + `"}`
	d, err := loaded(TrustPolicy, oneStatement("2012-10-17", who+`,"Action":["sts:AssumeRole","STS:TagSession"]`))
	require.NoError(t, err)
	require.Equal(t, TrustPolicy, d.Kind)
	require.Equal(t, []string{rootARN(ours)}, d.Statements[0].Principals.AWS)
	for members, want := range map[string]string{
		`"Action":"sts:AssumeRole"`: "Missing required field Principal",
		who:                         "Missing required field Action",
		who + `,"Action":"sts:AssumeRole","Resource":"*"`:                                "Has prohibited field Resource",
		who + `,"Action":"sts:AssumeRole","NotResource":"*"`:                             "Has prohibited field Resource",
		who + `,"Action":["sts:AssumeRole","kms:Decrypt"]`:                               "AssumeRole policy may only specify STS AssumeRole actions.",
		who + `,"Action":"*"`:                                                            "AssumeRole policy may only specify STS AssumeRole actions.",
		who + `,"Sid":"a b","Action":"sts:AssumeRole"`:                                   "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
		`"Principal":{"AWS":"x"},"Action":"sts:AssumeRole"`:                              `Invalid principal in policy: "AWS":"x"`,
		`"NotPrincipal":{"AWS":["*","AIDAABCDEFGHIJKLMNOPQ"]},"Action":"sts:AssumeRole"`: `Invalid principal in policy: "AWS":"AIDAABCDEFGHIJKLMNOPQ"`,
		`"Principal":{"Service":"S3"},"Action":"sts:AssumeRole"`:                         `Invalid principal in policy: "Service":"S3"`,
		`"Principal":"x","Action":"sts:AssumeRole"`:                                      string(errInvalidPrincipal),
	} {
		d, err := loaded(TrustPolicy, oneStatement("2012-10-17", members))
		require.Nil(t, d, members)
		require.Equal(t, MalformedError(want), err, members)
	}
}

// TestTextsOfIAM has documents for what IAM says of them.
func TestTextsOfIAM(t *testing.T) {
	const (
		syntax, legacy = "Syntax errors in policy.", "The policy failed legacy parsing"
		vendor         = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
		product        = "Resource vendor must be fully qualified and cannot contain regexes."
		what           = `"Action":"kms:*","Resource":"*"`
	)
	resource := func(pattern string) string { return `"Action":"kms:*","NotResource":["*","` + pattern + `"]` }
	for members, want := range map[string]string{
		what + `,"Strange":1`:                                                 syntax,
		what + `,"NotAction":"*"`:                                             syntax,
		what + `,"Effect":"Deny"`:                                             syntax,
		what + `,"Sid":7`:                                                     syntax,
		what + `,"Condition":[]`:                                              syntax,
		what + `,"Condition":{"stringEquals":{"a:b":"c"}}`:                    syntax,
		`"Action":[7],"Resource":"*"`:                                         syntax,
		what + `,"Principal":{"Nobody":"*"}`:                                  "Policy document should not specify a principal.",
		`"Action":[],"Resource":[]`:                                           "Policy statement must contain actions.",
		`"NotAction":"s3:*","NotResource":[]`:                                 "Policy statement must contain resources.",
		`"Resource":"*","Action":["*","Encrypt"]`:                             vendor,
		`"Resource":"*","NotAction":""`:                                       vendor,
		what + `,"Condition":{"StringEquals":{"username":"c"}}`:               vendor,
		`"Resource":"*","Action":"kms:Encrypt:x"`:                             "Actions/Condition can contain only one colon.",
		`"Resource":"*","Action":"k*s:Encrypt"`:                               "Vendor k*s is not valid",
		resource("key/1"):                                                     `Resource key/1 must be in ARN format or "*".`,
		resource(""):                                                          `Resource  must be in ARN format or "*".`,
		resource("urn:aws:kms:::x"):                                           `Resource urn:aws:kms:::x must be in ARN format or "*".`,
		resource("arn:s3:::bucket"):                                           `Partition "s3" is not valid for resource "arn:s3:::bucket:*".`,
		resource("a:b"):                                                       `Partition "b" is not valid for resource "arn:b:*:*:*:*".`,
		resource("arn:error:s3::1:a:b"):                                       `Partition "error" is not valid for resource "arn:error:s3::1:a:b".`,
		resource("arn:aws"):                                                   product,
		resource("arn:aws:*:*:*:*"):                                           product,
		resource("arn:aws:k?s:*:*:*"):                                         product,
		resource("arn:aws:iam:us-east-1:111122223333:user/x"):                 "IAM resource arn:aws:iam:us-east-1:111122223333:user/x cannot contain region information.",
		resource("arn:aws::kms:us-east-1:111122223333:key/x"):                 legacy,
		resource("arn:aws:s3::bucket"):                                        legacy,
		resource("arn:aws:kms:"):                                              legacy,
		what + `,"Condition":{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}`: legacy,
		// Of several faults, one is told.
		`"Action":[],"Resource":"arn:aws:s3::bucket"`: legacy,
		`"Action":[],"Resource":"bucket"`:             "Policy statement must contain actions.",
		`"Action":"Encrypt","Resource":"bucket"`:      `Resource bucket must be in ARN format or "*".`,
	} {
		for kind, version := range map[Kind]string{IdentityPolicy: "2008-10-17", ManagedPolicy: "2012-10-17"} {
			d, err := loaded(kind, oneStatement(version, members))
			require.Nil(t, d, members)
			require.Equal(t, MalformedError(want), err, members)
		}
	}
	statement := `{"Effect":"Allow",` + what + `}`
	for text, want := range map[string]string{
		"": syntax, "{": syntax, "[]": syntax, "{}": syntax, `{"Statement":[]}`: syntax, `{"Statement":{}}`: syntax, `{"Statement":` + statement + `,"Version":"2012"}`: syntax,
		`{"Statement":{"Effect":"allow",` + what + `}}`:                                     legacy,
		`{"Statement":{"Effect":"Maybe",` + what + `}}`:                                     syntax,
		`{"Statement":{"Effect":"Maybe","Action":"kms:*","Resource":"arn:aws:s3::bucket"}}`: syntax,
		`{"Statement":[{"Sid":"a",` + statement[1:] + `,{"Sid":"a",` + statement[1:] + `]}`: "Statement IDs (SID) in a single policy must be unique.",
	} {
		_, err := loaded(IdentityPolicy, text)
		require.Equal(t, MalformedError(want), err, text)
	}
	for _, version := range []string{``, `"Version":"2008-10-17",`} {
		text := `{` + version + `"Statement":` + statement + `}`
		_, err := loaded(IdentityPolicy, text)
		require.NoError(t, err)
		_, err = loaded(ManagedPolicy, text)
		require.Equal(t, MalformedError("Policy document must be version 2012-10-17 or greater."), err)
	}
	_, err := loaded(TrustPolicy, "{")
	require.Equal(t, MalformedError("This policy contains invalid Json"), err)
}

// TestIncompleteARNs has ARNs that end early: what is missing is a wildcard.
func TestIncompleteARNs(t *testing.T) {
	for written, meant := range map[string]string{
		"*": "*", "arn:aws:kms": "arn:aws:kms:*:*:*", "arn:aws:kms:*": "arn:aws:kms:*:*:*", "arn:*:kms:eu-*": "arn:*:kms:eu-*:*:*",
		"arn:aws-cn:kms:*:111122223333": "arn:aws-cn:kms:*:111122223333:*", "arn:aws:kms:::": "arn:aws:kms:::", "arn:aws:s3:::a:b": "arn:aws:s3:::a:b",
		"arn:aws:kms:*:${aws:PrincipalAccount}":       "arn:aws:kms:*:${aws:PrincipalAccount}:*",
		"arn:aws:kms:*:${aws:PrincipalAccount}:key/*": "arn:aws:kms:*:${aws:PrincipalAccount}:key/*",
	} {
		d, err := loaded(ManagedPolicy, oneStatement("2012-10-17", `"Action":"kms:*","Resource":"`+written+`"`))
		require.NoError(t, err, written)
		require.Equal(t, []string{meant}, d.Statements[0].Resources.List)
		require.Equal(t, IdentityPolicy, d.Kind)
	}
}

// TestResourcesOfKeyPolicies has resources that key policies could always have, and must go on to have: a key whose policy can't
// be read is of no use.
func TestResourcesOfKeyPolicies(t *testing.T) {
	for written, meant := range map[string]string{
		"arn:aws:kms:*:*:*": "arn:aws:kms:*:*:*", "arn:aws:kms:*:${aws:PrincipalAccount}": "arn:aws:kms:*:${aws:PrincipalAccount}:*",
		"arn:own:*:::x": "arn:own:*:::x",
	} {
		d, err := loaded(KeyPolicy, oneStatement("2012-10-17", `"Principal":"*","Action":"kms:*","Resource":"`+written+`"`))
		require.NoError(t, err, written)
		require.Equal(t, []string{meant}, d.Statements[0].Resources.List)
	}
	_, err := loaded(KeyPolicy, oneStatement("2012-10-17", `"Principal":"*","Action":"kms:*","Resource":"arn:aws:kms:*:*"`))
	require.Equal(t, errNoARN("arn:aws:kms:*:*"), err)
}

// TestAcceptedPolicies has resources that new policies must not have, of policies that there are already.
func TestAcceptedPolicies(t *testing.T) {
	for _, resource := range []string{"arn:aws:*:*:*:*", "arn:own:kms:*:*:key/*", "arn:aws::kms:*:*:*", "arn:aws:iam:us-east-1:111122223333:user/x"} {
		text := oneStatement("2008-10-17", `"Action":"kms:*","Resource":"`+resource+`"`)
		_, err := Load(IdentityPolicy, text)
		require.Error(t, err, resource)
		p, err := Load(AcceptedPolicy, text)
		require.NoError(t, err, resource)
		require.Equal(t, IdentityPolicy, p.kind)
	}
	d, err := loaded(AcceptedPolicy, oneStatement("2012-10-17", `"Action":"kms:*","Resource":"arn:aws:kms"`))
	require.NoError(t, err)
	require.Equal(t, []string{"arn:aws:kms:*:*:*"}, d.Statements[0].Resources.List)
	_, err = Load(AcceptedPolicy, oneStatement("2012-10-17", `"Action":"Encrypt","Resource":"*"`))
	require.Equal(t, errNoVendor, err)
}

// TestValuesOfConditions has values that do not suit their operator, and some that do although they look odd.
func TestValuesOfConditions(t *testing.T) {
	for operator, values := range map[string][]string{
		"NumericEquals":      {"x", "", "1,5", "0x10", "Inf", "NaN", "1_000", "true", "${aws:EpochTime}"},
		"DateLessThan":       {"x", "", "2026-13-01", "01/02/2026", "2026-01-01T00:00:00", "${aws:CurrentTime}"},
		"Bool":               {"x", "", "yes", "1", "${aws:SecureTransport}"},
		"Null":               {"x", "", "null"},
		"BinaryEquals":       {"a", "YQ", "YR==", `YQ==\n`, "Y Q=="},
		"IpAddress":          {"x", "", "10.0.0.0/33", "10.0.0", "10.0.0.0/", "fe80::1%eth0", "::ffff:10.0.0.0/104", "*"},
		"NotIpAddress":       {"10.0.0.256"},
		"NumericNotEquals":   {"one"},
		"DateGreaterThan":    {"tomorrow"},
		"DateLessThanEquals": {"2026-1-1"},
	} {
		for _, value := range values {
			_, err := loaded(KeyPolicy, withStatement(`,"Condition":{"`+operator+`":{"aws:x":["`+anyText(operator)+`","`+value+`"]}}`))
			var malformed MalformedError
			require.ErrorAs(t, err, &malformed, "%s %q", operator, value)
			require.Contains(t, err.Error(), "is not valid for the condition operator", "%s %q", operator, value)
		}
	}
	for operator, values := range map[string][]string{
		"NumericEquals": {"-1", "+2.50", "1e3", ".5"},
		"DateLessThan":  {"0", "-1", "1546257599.0", "2026-01", "2026-01-01", "2026-01-01T10:00Z", "2026-01-01T10:00:00.123+01:00"},
		"Bool":          {"TRUE", "False"},
		"BinaryEquals":  {"", "YQ=="},
		"IpAddress":     {"10.1.2.3/8", "::/0", "192.0.2.1", "::ffff:10.0.0.1"},
		"StringEquals":  {"", "*"},
		"ArnLike":       {"", "x", "*"},
	} {
		for _, value := range values {
			parse(t, withStatement(`,"Condition":{"`+operator+`":{"aws:x":"`+value+`"}}`))
		}
	}
}

// TestVariables has texts that begin like variables and are none, which only the version without variables takes.
func TestVariables(t *testing.T) {
	condition := func(version, value string) string {
		return `{"Version":"` + version + `","Statement":{"Effect":"Allow","Principal":"*","Condition":{"StringLike":{"aws:x":"` + value + `"}}}}`
	}
	for _, value := range []string{
		"${", "${}", "a${aws:username", "${username}", "${aws:}", "${:x}", "${aws:username,}", "${aws:username, x}", "${aws:username, 'x}", "${aws:username, 'x'",
		"${aws:username, 'x' y}", "${ aws:username}", "${*", "${**}", "${aws:username}${",
	} {
		_, err := loaded(KeyPolicy, condition("2012-10-17", value))
		require.Equal(t, malformed("The policy has an invalid variable in %s.", show(value)), err)
		parse(t, condition("2008-10-17", value))
	}
	for _, value := range []string{"${*}${?}${$}", "${aws:username}", "${aws:PrincipalTag/a b}", "${aws:username,'x'}", "${aws:username,  '}'  }", "${no:such}", "$", "{}", "$${aws:username}}"} {
		parse(t, condition("2012-10-17", value))
	}
	_, err := loaded(IdentityPolicy, oneStatement("2012-10-17", `"Action":"kms:*","Resource":"arn:aws:kms:*:*:key/${x}"`))
	require.Equal(t, MalformedError(`The policy has an invalid variable in "arn:aws:kms:*:*:key/${x}".`), err)
}

// TestMisuse gives policies to what they are not for, and requests that lack what decisions stand on. All that denies.
func TestMisuse(t *testing.T) {
	everything := `"Action":"kms:*","Resource":"*"`
	key := load(t, KeyPolicy, oneStatement("2012-10-17", `"Principal":"*",`+everything))
	identity := load(t, IdentityPolicy, oneStatement("2012-10-17", everything))
	trust := load(t, TrustPolicy, oneStatement("2012-10-17", `"Principal":"*","Action":"sts:*"`))
	alice := actors["alice"]
	request := func(change func(*Request, *Caller)) *Request {
		c := &Caller{Principal: alice, Identity: []*Policy{identity}}
		r := &Request{Caller: c, Action: "kms:Decrypt", Resource: keyARN, Account: ours}
		change(r, c)
		return r
	}
	asIs := func(*Request, *Caller) {}
	require.True(t, DecideByKeyPolicy(request(asIs), key, nil).Allowed)
	require.True(t, DecideByIdentity(request(asIs)).Allowed)
	require.True(t, key.KeepsControl(request(asIs)))
	for _, p := range []*Policy{nil, identity, trust} {
		require.Equal(t, Decision{Reason: ResourceDenies}, DecideByKeyPolicy(request(asIs), p, nil))
		require.False(t, p.KeepsControl(request(asIs)))
	}
	require.Equal(t, Decision{Reason: ResourceDenies}, DecideByTrust(request(asIs), key))
	require.Equal(t, Decision{Reason: ResourceDenies}, DecideByTrust(request(asIs), nil))

	for name, test := range map[string]struct {
		change func(*Request, *Caller)
		reason Reason
	}{
		"key policy as identity-based": {func(_ *Request, c *Caller) { c.Identity = []*Policy{identity, key} }, IdentityDenies},
		"no identity-based policy":     {func(_ *Request, c *Caller) { c.Identity = []*Policy{nil} }, IdentityDenies},
		"key policy as boundary":       {func(_ *Request, c *Caller) { c.Boundary = key }, BoundaryDenies},
		"key policy for session":       {func(_ *Request, c *Caller) { c.Session = []*Policy{key} }, SessionDenies},
		"no session policy":            {func(_ *Request, c *Caller) { c.Session = []*Policy{nil} }, SessionDenies},
		"no caller":                    {func(r *Request, _ *Caller) { r.Caller = nil }, Undecidable},
		"no action":                    {func(r *Request, _ *Caller) { r.Action = "" }, Undecidable},
		"no account of the caller":     {func(_ *Request, c *Caller) { c.Account = "" }, Undecidable},
		"no ARN of the caller":         {func(_ *Request, c *Caller) { c.ARN = "" }, Undecidable},
		"no role of a session":         {func(_ *Request, c *Caller) { c.Type = AssumedRole }, Undecidable},
		"no id of the caller":          {func(_ *Request, c *Caller) { c.UserID = "" }, Undecidable},
		"no id of a session's role": {func(_ *Request, c *Caller) {
			c.Type, c.RoleARN = AssumedRole, actors["admin"].RoleARN
		}, Undecidable},
		"a role of a user": {func(_ *Request, c *Caller) { c.RoleARN = actors["admin"].RoleARN }, Undecidable},
	} {
		denied := Decision{Reason: test.reason}
		require.Equal(t, denied, DecideByKeyPolicy(request(test.change), key, nil), name)
		require.Equal(t, denied, DecideByIdentity(request(test.change)), name)
		require.Equal(t, denied, DecideByTrust(request(test.change), trust), name)
		require.Equal(t, denied, DecideRetire(request(test.change), bound(&Grant{RetiringPrincipal: alice.ARN})), name)
		require.Contains(t, denied.Sentence(request(test.change)), "is not authorized to perform")
	}
	strangers := request(func(r *Request, _ *Caller) { r.Account = "" })
	require.True(t, DecideByKeyPolicy(strangers, key, nil).Allowed, "by both policies, as across accounts")
	strangers.Caller.Identity = nil
	require.Equal(t, Decision{Reason: IdentitySilent}, DecideByKeyPolicy(strangers, key, nil), "a key of no account is nobody's own")
}
