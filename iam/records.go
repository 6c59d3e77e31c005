package iam

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// The keys of the store, in which <name> is a name in lower case, because IAM does not tell names by case:
//
//	iam/account/<account>                    account
//	iam/key/<access key id>                  credential: an access key, or that of a session
//	iam/owner/<owner>/<access key id>        nothing: the access keys of a user (its id) or of a root user (its account)
//	iam/entity/<id>                          entity: a user or a role
//	iam/user/<account>/<name>                the id of a user
//	iam/role/<account>/<name>                the id of a role
//	iam/policy/<account>/<name>              managed: a managed policy
//	iam/attached/<policy id>/<entity id>     nothing: who has a managed policy among its policies
//	iam/bounded/<policy id>/<entity id>      nothing: who has it for a permissions boundary
//	iam/expiry/<time>/<access key id>        nothing: when the record of a session goes
//	iam/used/<access key id>                 lastUse
//	iam/trust-bound                          nothing: that all trust policies are bound, see Upgrade
//
// Keys, sessions and trust policies mean users and roles by their ids, which are never used again: who gets the name of a
// deleted user gets nothing else of it.
const (
	recordPrefix   = "iam/"
	accountPrefix  = recordPrefix + "account/"
	keyPrefix      = recordPrefix + "key/"
	ownerPrefix    = recordPrefix + "owner/"
	entityPrefix   = recordPrefix + "entity/"
	policyPrefix   = recordPrefix + "policy/"
	attachedPrefix = recordPrefix + "attached/"
	boundedPrefix  = recordPrefix + "bounded/"
	expiryPrefix   = recordPrefix + "expiry/"
	usedPrefix     = recordPrefix + "used/"
)

func keysOf(owner string) string { return ownerPrefix + owner + "/" }

// kind is what an entity is. It is a part of ARNs and records, and a word of AWS's texts.
type kind string

const (
	user kind = "user"
	role kind = "role"
)

// title is the kind at the beginning of a text, and in the names of operations.
func (k kind) title() string { return strings.ToUpper(string(k[:1])) + string(k[1:]) }

func (k kind) names(account string) string { return recordPrefix + string(k) + "/" + account + "/" }

func (k kind) arn(account, path, name string) string {
	return "arn:aws:iam::" + account + ":" + string(k) + path + name
}

func policyRecords(account string) string { return policyPrefix + account + "/" }

// account is the record of an account.
type account struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// credential is the record of an access key. It is immutable but for Inactive.
type credential struct {
	ID      string `json:"id"`
	Account string `json:"account"`
	// Owner is the id of a user or, in a session of one, of a role; or the account itself for its root user.
	Owner string `json:"owner"`
	// Sealed is the secret as the vault sealed it under the key of this record.
	Sealed   []byte    `json:"sealed"`
	Created  time.Time `json:"created"`
	Inactive bool      `json:"inactive,omitempty"`
	// Session is nil for access keys that last.
	Session *session `json:"session,omitempty"`
}

// session is what temporary credentials have beside the access key.
type session struct {
	// Token is the SHA-256 of the session token.
	Token   []byte    `json:"token"`
	Expires time.Time `json:"expires"`
	// Name is the name of a session of a role, and "" for that of a user.
	Name string `json:"name,omitempty"`
	// Policy and PolicyARNs are the session policies.
	Policy     string   `json:"policy,omitempty"`
	PolicyARNs []string `json:"policyArns,omitempty"`
	Tags       []Tag    `json:"tags,omitempty"`
	// Transitive are the keys of the tags that go on to sessions of roles that are begun with this one.
	Transitive []string `json:"transitive,omitempty"`
	// SourceIdentity goes on likewise.
	SourceIdentity string `json:"sourceIdentity,omitempty"`
}

// entity is the record of a user or a role.
type entity struct {
	Kind     kind              `json:"kind"`
	ID       string            `json:"id"`
	Account  string            `json:"account"`
	Path     string            `json:"path"`
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Tags     []Tag             `json:"tags,omitempty"`
	Inline   map[string]string `json:"inline,omitempty"` // documents by name
	Attached []string          `json:"attached,omitempty"`
	Boundary string            `json:"boundary,omitempty"`
	// The rest is for roles.
	Trust string `json:"trust,omitempty"`
	// Trusted says who the principals of Trust are.
	Trusted     policy.Bindings `json:"trusted,omitempty"`
	Description string          `json:"description,omitempty"`
	// MaxSession is the longest session in seconds.
	MaxSession int32 `json:"maxSession,omitempty"`
}

func (e *entity) arn() string { return e.Kind.arn(e.Account, e.Path, e.Name) }

// nameRecord is the entity's entry among the names.
func (e *entity) nameRecord() string { return e.Kind.names(e.Account) + strings.ToLower(e.Name) }

// managed is the record of a managed policy.
type managed struct {
	ID          string    `json:"id"`
	Account     string    `json:"account"`
	Path        string    `json:"path"`
	Name        string    `json:"name"`
	Created     time.Time `json:"created"`
	Updated     time.Time `json:"updated"`
	Description string    `json:"description,omitempty"`
	Tags        []Tag     `json:"tags,omitempty"`
	// Versions are in the order of their numbers. One of them is the default.
	Versions []version `json:"versions"`
	Default  int       `json:"default"`
	// Latest is the highest number that a version ever had.
	Latest int `json:"latest"`
}

// version is a version of a managed policy.
type version struct {
	Number   int       `json:"number"`
	Document string    `json:"document"`
	Created  time.Time `json:"created"`
}

func (m *managed) arn() string { return policyARN(m.Account, m.Path, m.Name) }

func policyARN(account, path, name string) string {
	return "arn:aws:iam::" + account + ":policy" + path + name
}

func (m *managed) record() string { return policyRecords(m.Account) + strings.ToLower(m.Name) }

// version gives the version with a number; nil if there is none.
func (m *managed) version(number int) *version {
	for i := range m.Versions {
		if m.Versions[i].Number == number {
			return &m.Versions[i]
		}
	}
	return nil
}

// document gives the document that is in force.
func (m *managed) document() string { return m.version(m.Default).Document }

// lastUse says when, for what and where an access key was last used.
type lastUse struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	Region  string    `json:"region"`
}

// read gives the record under a key; nil if there is none.
func read[T any](r store.Reader, key string) (*T, error) {
	value, found, err := r.Get(key)
	if err != nil || !found {
		return nil, err
	}
	record := new(T)
	if err := json.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return record, nil
}

func put(t store.Txn, key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return t.Put(key, value)
}

// names gives the keys with a prefix, without it.
func names(r store.Reader, prefix string) ([]string, error) {
	var all []string
	err := r.Scan(prefix, "", func(key string, _ []byte) bool {
		all = append(all, strings.TrimPrefix(key, prefix))
		return true
	})
	return all, err
}

// byName finds a user or role; nil if there is none.
func byName(r store.Reader, k kind, account, name string) (*entity, error) {
	id, found, err := r.Get(k.names(account) + strings.ToLower(name))
	if err != nil || !found {
		return nil, err
	}
	e, err := read[entity](r, entityPrefix+string(id))
	if err != nil || e == nil || e.Name != name { // names are unique without regard to case, and found with regard to it
		return nil, err
	}
	return e, nil
}

// byARN finds a managed policy of an account; nil if there is none.
func byARN(r store.Reader, account, arn string) (*managed, error) {
	m, err := read[managed](r, policyRecords(account)+strings.ToLower(lastPart(arn)))
	if err != nil || m == nil || m.arn() != arn {
		return nil, err
	}
	return m, nil
}

// lastPart gives what follows the last slash.
func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
