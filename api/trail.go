package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"reflect"
	"strings"

	"hsmkms/audit"
	"hsmkms/kms"
	"hsmkms/policy"
)

// trail records a call whose caller is known, before it is answered: allowed or denied, whatever came of it. What cannot be
// recorded fails, and so nothing that was done for it is given out. It does not end with the request, whose client may be gone.
func (s *Server) trail(ctx context.Context, x *exchange, e endpoint, input any, outcome error) (err error) {
	if s.cfg.Trail == nil {
		return nil
	}
	defer recovered(&err)
	if err := s.cfg.Trail(context.WithoutCancel(ctx), x.event(e, input, outcome)); err != nil {
		return fmt.Errorf("recording the call in the audit trail: %w", err)
	}
	return nil
}

// event makes the record of a call.
func (x *exchange) event(e endpoint, input any, outcome error) *audit.Event {
	r := &x.request
	event := &audit.Event{
		UserIdentity: userIdentity(r.Caller), EventTime: x.start, EventSource: x.service.name + ".amazonaws.com", EventName: r.Operation,
		AWSRegion: r.Region, UserAgent: x.http.UserAgent(), RequestID: r.ID, ReadOnly: readOnly(r.Operation), Recipients: r.Recipients(x.roles...),
	}
	if host, _, err := net.SplitHostPort(x.http.RemoteAddr); err == nil {
		event.SourceIPAddress = host
	}
	if input != nil {
		event.RequestParameters = e.decoder.root.parameters(reflect.ValueOf(input).Elem(), unsaid)
	}
	event.ResponseElements, event.AdditionalEventData = x.responseElements(e), r.Materials
	event.Resources = make([]audit.Resource, 0, len(r.Keys)+len(x.roles))
	for _, arn := range r.Keys {
		event.Resources = append(event.Resources, audit.Resource{AccountID: audit.AccountOf(arn), ARN: arn})
	}
	for _, arn := range x.roles {
		event.Resources = append(event.Resources, audit.Resource{AccountID: audit.AccountOf(arn), Type: "AWS::IAM::Role", ARN: arn})
	}
	if outcome != nil {
		shown := x.service.describe(outcome)
		event.ErrorCode, event.ErrorMessage = shown.code, shown.message
		if shown.code == string(kms.AccessDenied) { // which CloudTrail writes so
			event.ErrorCode = strings.TrimSuffix(shown.code, "Exception")
		}
	}
	if state := x.http.TLS; state != nil {
		event.TLS = &audit.TLSDetails{
			TLSVersion: strings.ReplaceAll(tls.VersionName(state.Version), "TLS 1", "TLSv1"), CipherSuite: tls.CipherSuiteName(state.CipherSuite),
			ClientProvidedHostHeader: x.http.Host,
		}
	}
	return event
}

// userIdentity is CloudTrail's userIdentity element for a caller.
func userIdentity(c *policy.Caller) audit.UserIdentity {
	u := audit.UserIdentity{
		Type: string(c.Type), PrincipalID: c.UserID, ARN: c.ARN, AccountID: c.Account, AccessKeyID: c.AccessKeyID, UserName: c.UserName,
	}
	if c.Issued.IsZero() {
		return u
	}
	u.SessionContext = &audit.SessionContext{CreationDate: c.Issued, MFAAuthenticated: c.MFA, SourceIdentity: c.SourceIdentity}
	if c.RoleARN != "" {
		role, _, _ := strings.Cut(c.UserID, ":")
		u.SessionContext.Issuer = &audit.UserIdentity{
			Type: "Role", PrincipalID: role, ARN: c.RoleARN, AccountID: c.Account, UserName: c.RoleARN[strings.LastIndexByte(c.RoleARN, '/')+1:],
		}
	}
	return u
}

// recordable fails for an operation that would change something while calls cannot be recorded. The refusal is recorded like any
// other answer, which shows when there can be records again.
func (c *Config) recordable(operation string) error {
	if c.TrailRefuses == nil || readOnly(operation) && !keepers[operation] {
		return nil
	}
	if err := c.TrailRefuses(); err != nil {
		return fmt.Errorf("not begun, because the audit trail fails: %w", err)
	}
	return nil
}

// keepers are operations that are read-only to CloudTrail, and of which something is kept.
var keepers = map[string]bool{"GetParametersForImport": true, "AssumeRole": true, "GetSessionToken": true}

// readers are operations that change nothing, besides those that begin with a word of readerWords.
var (
	readers = map[string]bool{
		"Decrypt": true, "DeriveSharedSecret": true, "Encrypt": true, "GenerateDataKey": true, "GenerateDataKeyPair": true,
		"GenerateDataKeyPairWithoutPlaintext": true, "GenerateDataKeyWithoutPlaintext": true, "GenerateMac": true, "GenerateRandom": true,
		"ReEncrypt": true, "Sign": true, "Verify": true, "VerifyMac": true, "AssumeRole": true,
	}
	readerWords = []string{"Describe", "Get", "List"}
)

func readOnly(operation string) bool {
	for _, word := range readerWords {
		if strings.HasPrefix(operation, word) {
			return true
		}
	}
	return readers[operation]
}
