package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"hsmkms/audit"
	"hsmkms/auth"
	"hsmkms/policy"
)

// The one access key of the floor, whose owner is the root of an account.
const (
	floorAccessKey = "AKIAFLOORFLOORFLOOR0"
	floorSecret    = "floor"
	floorAccount   = "111122223333"
	floorRoot      = "arn:aws:iam::" + floorAccount + ":root"
)

// checks is what a server cannot leave out that lets in nobody unknown and leaves no call unrecorded: the signature, and a record
// in the trail before the answer. With them the floor shows how much of the distance to it is theirs alone, whoever the server is.
type checks struct {
	verifier *auth.Verifier
	trail    *audit.Trail
}

func newChecks(ctx context.Context, dir, sync string) (*checks, error) {
	caller := &policy.Caller{}
	verifier, err := auth.New(auth.Config{
		Regions: func(service, region string) bool { return service == "kms" && region == "us-east-1" },
		Credential: func(context.Context, string) (auth.Credential, bool, error) {
			return auth.Credential{Caller: caller}, true, nil
		},
		Secret: func(context.Context, string) ([]byte, error) { return []byte(floorSecret), nil },
	})
	if err != nil {
		return nil, err
	}
	cfg := audit.Config{Dir: filepath.Join(dir, "audit"), Sync: audit.SyncAlways}
	if sync != durable {
		if cfg.Sync, err = time.ParseDuration(sync); err != nil {
			return nil, err
		}
	}
	trail, err := audit.New(ctx, cfg)
	return &checks{verifier, trail}, err
}

func (c *checks) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = c.trail.Close(ctx) // nobody reads it
}

// verify checks the signature of a request, and puts its body back.
func (c *checks) verify(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_, err = c.verifier.Verify(r.Context(), r, body, []string{"kms"})
	return err
}

// record writes a record with the members that CloudTrail has for every call; those of the server have some more.
func (c *checks) record(r *http.Request, op string, in *message) error {
	return c.trail.Record(r.Context(), &audit.Event{
		UserIdentity: audit.UserIdentity{Type: "Root", PrincipalID: floorAccount, ARN: floorRoot, AccountID: floorAccount, AccessKeyID: floorAccessKey},
		EventTime:    time.Now(), EventName: op, AWSRegion: "us-east-1", SourceIPAddress: "127.0.0.1", UserAgent: r.UserAgent(),
		RequestParameters: audit.Parameters{
			{Name: "destinationKeyId", Value: audit.Text(in.DestinationKeyId)}, {Name: "encryptionContext", Value: audit.Pairs(encryptionContext)},
		},
		RequestID: "11111111-2222-4333-8444-555555555555", ReadOnly: true,
		Resources: []audit.Resource{{AccountID: floorAccount, ARN: floorRoot}, {AccountID: floorAccount, ARN: floorRoot}},
	})
}
