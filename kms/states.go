package kms

// KeyState is the state of a key, in AWS's words.
type KeyState string

// The states of the published model. Keys of this server are in one of the first four.
const (
	Enabled                KeyState = "Enabled"
	DisabledState          KeyState = "Disabled"
	PendingDeletion        KeyState = "PendingDeletion"
	PendingImport          KeyState = "PendingImport"
	PendingReplicaDeletion KeyState = "PendingReplicaDeletion"
	Unavailable            KeyState = "Unavailable"
	Creating               KeyState = "Creating"
	Updating               KeyState = "Updating"
)

// rule is what an operation does with a key in a state: nothing to object, or an error.
type rule func(*Key) error

func ok(*Key) error { return nil }

func isDisabled(k *Key) error { return Errorf(Disabled, "%s is disabled.", k.ARN()) }

// is makes the rule that a state is no state for the operation.
func is(words string) rule {
	return func(k *Key) error { return Errorf(InvalidState, "%s is %s.", k.ARN(), words) }
}

var (
	dying       = is("pending deletion")
	replicas    = is("pending replica deletion")
	noMaterial  = is("pending import")
	unavailable = is("unavailable")
	creating    = is("creating")
	updating    = is("updating")
	notDying    = is("not pending deletion")
)

// wrongOrigin says that the operation is not for keys with material of this origin.
func wrongOrigin(k *Key) error {
	return Errorf(UnsupportedOperation, "%s origin is %s which is not valid for this operation.", k.ARN(), k.Origin)
}

// generated makes a rule for keys whose material the service made itself; the operation is not for others.
func generated(r rule) rule {
	return func(k *Key) error {
		if k.Origin != OriginKMS {
			return wrongOrigin(k)
		}
		return r(k)
	}
}

// imported makes a rule for keys whose material is imported; the operation is not for others.
func imported(r rule) rule {
	return func(k *Key) error {
		if k.Origin != OriginExternal {
			return wrongOrigin(k)
		}
		return r(k)
	}
}

// row is what an operation does in each state. Operations that do the same share a row.
type row map[KeyState]rule

// The rows of the table "Key states" of the AWS KMS developer guide, which testdata/key-states.md holds and a test
// compares with what the operations do. Where it says that an operation fails in one way for keys of one origin and in
// another way for others, the origin comes first. The order of the states is: Enabled, Disabled,
// PendingDeletion, PendingReplicaDeletion, PendingImport, Unavailable, Creating, Updating.
var (
	cryptographic   = newRow(ok, isDisabled, dying, replicas, noMaterial, unavailable, creating, ok)
	granting        = newRow(ok, isDisabled, dying, replicas, noMaterial, ok, creating, ok)
	anyState        = newRow(ok, ok, ok, ok, ok, ok, ok, ok)
	unlessDying     = newRow(ok, ok, dying, replicas, ok, ok, ok, ok)
	toggling        = newRow(ok, ok, dying, replicas, noMaterial, ok, creating, updating)
	scheduling      = newRow(ok, ok, dying, replicas, ok, ok, ok, updating)
	canceling       = newRow(notDying, notDying, ok, ok, notDying, notDying, notDying, notDying)
	autoRotating    = newRow(generated(ok), generated(isDisabled), generated(dying), generated(replicas), wrongOrigin, wrongOrigin, creating, generated(ok))
	rotationStatus  = newRow(generated(ok), generated(ok), generated(ok), generated(ok), wrongOrigin, wrongOrigin, generated(ok), generated(ok))
	rotatingNow     = newRow(ok, isDisabled, dying, replicas, noMaterial, wrongOrigin, creating, ok)
	importPreparing = newRow(imported(ok), imported(ok), imported(dying), imported(replicas), imported(ok), wrongOrigin, creating, updating)
	importing       = newRow(imported(ok), imported(ok), imported(dying), imported(replicas), imported(ok), wrongOrigin, creating, imported(ok))
	unimporting     = newRow(imported(ok), imported(ok), imported(ok), imported(ok), imported(ok), wrongOrigin, creating, updating)
)

func newRow(enabled, disabled, dying, replicas, noMaterial, unavailable, creating, updating rule) row {
	return row{
		Enabled: enabled, DisabledState: disabled, PendingDeletion: dying, PendingReplicaDeletion: replicas,
		PendingImport: noMaterial, Unavailable: unavailable, Creating: creating, Updating: updating,
	}
}

// check fails when the operation is not allowed in the key's state; in a state without a rule nothing is.
func (r row) check(key *Key) error {
	if rule, known := r[key.State]; known {
		return rule(key)
	}
	return is("in an invalid state")(key)
}
