package kms

// KeyState is the state of a key, in AWS's words.
type KeyState string

// The states that a key can be in.
const (
	Enabled         KeyState = "Enabled"
	DisabledState   KeyState = "Disabled"
	PendingDeletion KeyState = "PendingDeletion"
	PendingImport   KeyState = "PendingImport"
)

// rule is what an operation does in a state.
type rule func(arn string) error

func allowed(string) error { return nil }

func isDisabled(arn string) error { return Errorf(Disabled, "%s is disabled.", arn) }

func pendingDeletion(arn string) error { return Errorf(InvalidState, "%s is pending deletion.", arn) }

func pendingImport(arn string) error { return Errorf(InvalidState, "%s is pending import.", arn) }

// stateRules are the rows of the table "key states" of the AWS KMS developer guide, by the state of the key. Operations
// with the same row share it.
type stateRules map[KeyState]rule

var (
	// cryptographic is the row of every operation that uses key material.
	cryptographic = stateRules{Enabled: allowed, DisabledState: isDisabled, PendingDeletion: pendingDeletion, PendingImport: pendingImport}
	// anyState is the row of operations that only look.
	anyState = stateRules{Enabled: allowed, DisabledState: allowed, PendingDeletion: allowed, PendingImport: allowed}
	// notDying is the row of changes that a key without material takes too.
	notDying = stateRules{Enabled: allowed, DisabledState: allowed, PendingDeletion: pendingDeletion, PendingImport: allowed}
	// toggling is the row of EnableKey and DisableKey.
	toggling = stateRules{Enabled: allowed, DisabledState: allowed, PendingDeletion: pendingDeletion, PendingImport: pendingImport}
)

// check fails when the operation is not allowed in the key's state; in a state without a rule nothing is.
func (r stateRules) check(key *Key) error {
	if rule, ok := r[key.State]; ok {
		return rule(key.ARN())
	}
	return Errorf(InvalidState, "%s is in an invalid state.", key.ARN())
}
