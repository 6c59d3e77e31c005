// Package kms is the service: what a key is and what may happen to it. Each operation of the AWS KMS API is a method of
// Service, named as there and with AWS's own Input and Output; the caller is a parameter of every one of them. The
// package knows no HTTP, no PKCS#11 and no database, only their contracts (hsm.Token, store.Store).
//
// There is one way from a key id in a request to a key that can be used: Service.authorize (access.go). Who encrypts has a
// destination, who decrypts a source, and who does anything else with a key an operand (destination.go, source.go, operand.go);
// ciphertext is described in one place (envelope.go). States, key specs and operations are tables (states.go, keyspec.go,
// actions.go).
package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
	"unique"

	lru "github.com/hashicorp/golang-lru/v2"

	"hsmkms/audit"
	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store"
)

// Config describes a Service.
type Config struct {
	// Store keeps the records of keys and aliases.
	Store store.Store
	// Regions are the AWS Regions served, by name, each bound to a token.
	Regions map[string]Region
	// CacheSize bounds the number of key records, and of aliases, held in memory; 0 means 100,000.
	CacheSize int
	// Clock gives the time; nil means time.Now.
	Clock func() time.Time
	// Day is how long a day of a waiting or rotation period lasts; 0 means 24 hours. Less, but not more, is for trying out.
	Day time.Duration
	// Vault seals import tokens.
	Vault hsm.Vault
	// Principals tells who the users and roles are that key policies and grants name; zero knows none.
	Principals Principals
	// Budget is how often a key's material may encrypt before the service moves the key to fresh material; 0 means 2^31. At
	// twice the budget the material encrypts no more.
	Budget uint64
	// Rand is the source of ids; nil means crypto/rand.
	Rand io.Reader
	// Trail records what the service does to keys by itself, see audit.Trail.Deliver; nil records none.
	Trail func(ctx context.Context, e *audit.Event) error
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
}

// cachedPolicies bounds the number of compiled key policies in memory. Most keys of an account have the same one.
const cachedPolicies = 10_000

// Region is an AWS Region on a token.
type Region struct {
	Token hsm.Token
	// WrapUnder chooses the home of new key material: empty for persistent objects of the token, or the token's wrapping
	// key for material that is kept wrapped in the store. Keys made under the other choice go on working.
	WrapUnder hsm.KeyID
}

// Service is the key management service. Its methods are safe for concurrent use, fail with an *Error for what a caller
// may know and with any other error for what only the operator may, and wipe plaintext that they do not return. Plaintext
// in an Input or Output belongs to the caller, who wipes it.
type Service struct {
	cfg     Config
	keys    *store.Cache[*Key]
	aliases *store.Cache[*Alias]
	// shapes and grants are those of principals, see grantindex.go.
	shapes *store.Cache[[]shape]
	grants *store.Cache[[]*policy.Grant]
	// policies are compiled key policies, and open one that allows everybody everything, see denied.
	policies *lru.Cache[unique.Handle[ruled], *policy.Policy]
	open     *policy.Policy
	meter    *meter
	making   *makings
	wake     chan struct{} // wakes the schedule
	// reaping lets one doom of a Region at a time be carried out, see complete.
	reaping map[string]gate
	stop    context.CancelFunc
	running sync.WaitGroup
}

// New makes a Service. Close ends it.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || len(cfg.Regions) == 0 {
		return nil, errors.New("a service needs a store and a Region")
	}
	if cfg.Day < 0 || cfg.Day > 24*time.Hour { // periods of longer days overflow
		return nil, fmt.Errorf("a day of %s is not between 0 and 24 hours", cfg.Day)
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 100_000
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Day == 0 {
		cfg.Day = 24 * time.Hour
	}
	if cfg.Budget == 0 {
		cfg.Budget = 1 << 31
	}
	if cfg.Principals.IDs == nil || cfg.Principals.ARNs == nil {
		cfg.Principals = noPrincipals
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	keys, err := store.NewCache(cfg.Store, keyPrefix, cfg.CacheSize, decodeKey)
	if err != nil {
		return nil, err
	}
	aliases, err := store.NewCache(cfg.Store, aliasPrefix, cfg.CacheSize, decode[Alias])
	if err != nil {
		return nil, err
	}
	shapes, grants, err := grantCaches(cfg.Store, cfg.CacheSize)
	if err != nil {
		return nil, err
	}
	policies, err := lru.New[unique.Handle[ruled], *policy.Policy](cachedPolicies)
	if err != nil {
		return nil, err
	}
	open, err := policy.Load(policy.KeyPolicy, `{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}`)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, keys: keys, aliases: aliases, shapes: shapes, grants: grants, policies: policies, open: open,
		making: newMakings(), wake: make(chan struct{}, 1), reaping: map[string]gate{},
	}
	for region := range cfg.Regions {
		s.reaping[region] = newGate()
	}
	s.meter = newMeter(s)
	s.follow()
	return s, nil
}

// follow keeps the caches fresh until Close.
func (s *Service) follow() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, run := range []func(context.Context) error{s.keys.Run, s.aliases.Run, s.shapes.Run, s.grants.Run} {
		s.running.Go(func() {
			if err := run(ctx); ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
				s.cfg.Log.Error("following changes of the store", "error", err)
			}
		})
	}
}

// Close ends the service's goroutines. It closes neither the store nor the tokens.
func (s *Service) Close() {
	s.stop()
	s.running.Wait()
}

// Request is what an operation must know of the request besides its Input. It belongs to one request.
type Request struct {
	// ID is the request id that the answer carries.
	ID string
	// Operation is the name in the AWS API, for example ReEncrypt.
	Operation string
	// Caller is the authenticated identity with its policies.
	Caller *policy.Caller
	// Origin gives the values of condition keys about the request as such: when, from where and over what it came. Nil knows
	// none.
	Origin policy.Values
	// Region is the AWS Region of the request, one of Config.Regions.
	Region string
	// Keys collects the ARNs of the keys that the request was found to be about, for the log and the audit trail.
	Keys []string
	// Materials collects the ids of symmetric key materials that encrypted or decrypted, under the names that CloudTrail gives
	// them in additionalEventData.
	Materials audit.Parameters

	// events are the audit records that there will be of this request, if Announce was called: one for each account concerned.
	events []audit.Recipient
	random io.Reader
}

// Announce says that this request will be recorded in an audit trail, with ids that random makes.
func (r *Request) Announce(random io.Reader) { r.random = random }

// event gives the id of this request's audit record for an account; "" if there will be none.
func (r *Request) event(account string) string {
	if r.random == nil {
		return ""
	}
	if len(r.events) == 0 && account != r.Caller.Account {
		r.event(r.Caller.Account) // which comes first
	}
	for i := range r.events {
		if r.events[i].AccountID == account {
			return r.events[i].EventID
		}
	}
	id, err := audit.NewID(r.random)
	if err != nil {
		return "" // the trail makes one
	}
	r.events = append(r.events, audit.Recipient{AccountID: account, EventID: id})
	return id
}

// worked enters a material that has encrypted or decrypted. Those of key pairs are shown nowhere.
func (r *Request) worked(name string, key *Key, m *Material) {
	if id := key.shownID(m); id != "" {
		if r.Materials == nil {
			r.Materials = make(audit.Parameters, 0, 2) // as ReEncrypt has
		}
		r.Materials = append(r.Materials, audit.Parameter{Name: name, Value: audit.Text(id)})
	}
}

// Recipients gives the accounts that this request concerns: the caller's first, and those of the keys that it was about, or of
// others by their ARNs.
func (r *Request) Recipients(others ...string) []audit.Recipient {
	r.event(r.Caller.Account)
	for _, arns := range [...][]string{r.Keys, others} {
		for _, arn := range arns {
			r.event(audit.AccountOf(arn))
		}
	}
	return r.events
}

// region gives the Region of a request.
func (s *Service) region(r *Request) (Region, error) {
	region, ok := s.cfg.Regions[r.Region]
	if !ok {
		return Region{}, fmt.Errorf("request for Region %q, which is not served", r.Region)
	}
	return region, nil
}
