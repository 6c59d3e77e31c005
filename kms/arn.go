package kms

import (
	"strings"

	"hsmkms/kms/ciphertext"
	"hsmkms/policy"
)

// keyName is a key identifier as it came in a request, taken apart: the id of a key, or the name of an alias, and where
// it is.
type keyName struct {
	account, region string
	// One of the two is set.
	id, alias string
}

const aliasNamePrefix = "alias/"

// parseKeyName reads a key id, key ARN, alias name or alias ARN. The bare forms mean the caller's account and Region.
func parseKeyName(r *Request, text string) (keyName, error) {
	name := keyName{account: r.Caller.Account, region: r.Region}
	resource, isARN := text, strings.HasPrefix(text, "arn:")
	if isARN {
		parts := strings.SplitN(text, ":", 6)
		if len(parts) != 6 || parts[1] != "aws" || parts[2] != "kms" || !policy.IsAccount(parts[4]) {
			return name, Errorf(InvalidArn, "Invalid arn %s", text)
		}
		name.region, name.account = parts[3], parts[4]
		resource = parts[5]
	}
	if strings.HasPrefix(resource, aliasNamePrefix) {
		name.alias = resource
		return name, name.inRegion(r)
	}
	id, isKey := resource, true
	if isARN {
		id, isKey = strings.CutPrefix(resource, "key/")
	}
	if !isKey {
		return name, Errorf(InvalidArn, "Invalid arn %s", text)
	}
	if err := name.inRegion(r); err != nil {
		return name, err
	}
	if !ciphertext.ValidKeyID(id) {
		return name, Errorf(NotFound, "Invalid keyId '%s'", id)
	}
	name.id = id
	return name, nil
}

// inRegion fails for a name of another Region than the request's.
func (n keyName) inRegion(r *Request) error {
	if n.region != r.Region {
		return Errorf(NotFound, "Invalid arn %s", n.region)
	}
	return nil
}

// arn is the full name.
func (n keyName) arn() string {
	if n.alias != "" {
		return aliasARN(n.account, n.region, n.alias)
	}
	return (&Key{ID: n.id, Account: n.account, Region: n.region}).ARN()
}

func aliasARN(account, region, alias string) string {
	return "arn:aws:kms:" + region + ":" + account + ":" + alias
}
