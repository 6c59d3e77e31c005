package audit

import (
	"strconv"
	"strings"
	"time"
)

// Event is one call of the API, allowed or denied, with the members and names of a CloudTrail record (event version 1.11,
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html). Members
// that are empty are left out, as there. eventVersion, managementEvent and eventCategory are the same for every call and
// added by the trail.
type Event struct {
	UserIdentity UserIdentity
	// EventTime is when the call was received; zero means when it is recorded.
	EventTime time.Time
	// EventSource is the service; empty means kms.amazonaws.com.
	EventSource string
	EventName   string
	AWSRegion   string
	// SourceIPAddress is the address the call came from, without a port.
	SourceIPAddress string
	// UserAgent is cut to a kilobyte, as CloudTrail does.
	UserAgent string
	// ErrorCode is the name of the error that the caller gets, without Exception at its end where CloudTrail drops it
	// (AccessDenied); empty for a call that succeeds.
	ErrorCode string
	// ErrorMessage is cut to a kilobyte, as CloudTrail does. It is for the caller: other recipients' records lack it, because it
	// can name the caller and speak of its policies, or of a key of a third account.
	ErrorMessage      string
	RequestParameters Parameters
	// ResponseElements is nil for calls that change nothing, that fail or that answer nothing.
	ResponseElements    Parameters
	AdditionalEventData Parameters
	RequestID           string
	ReadOnly            bool
	// Resources are the keys that the call was about, both of them for ReEncrypt, or the role of AssumeRole.
	Resources []Resource
	// EventType is empty for AwsApiCall, or ServiceEvent.
	EventType           string
	ServiceEventDetails Parameters
	// Recipients are the accounts whom the call concerns: that of the caller first, then those of other keys' owners, or of a
	// role. Each gets a record of its own; when there are several, they share a sharedEventID. Without any, there is one record
	// for the account of UserIdentity.
	Recipients []Recipient
	// TLS is nil for a call that came without TLS, as far as this server knows.
	TLS *TLSDetails
}

// Recipient is an account whom a call concerns.
type Recipient struct {
	AccountID string
	// EventID is the record's eventID, a UUID. If it is empty, Record makes one and sets it here.
	EventID string
}

// UserIdentity says who called.
type UserIdentity struct {
	// Type is Root, IAMUser, AssumedRole, FederatedUser or AWSAccount.
	Type           string
	PrincipalID    string
	ARN            string
	AccountID      string
	AccessKeyID    string
	UserName       string
	SessionContext *SessionContext
	InvokedBy      string
}

// SessionContext is about temporary credentials.
type SessionContext struct {
	// Issuer is who the session was made from: a role, or the user who asked for a session token.
	Issuer           *UserIdentity
	CreationDate     time.Time
	MFAAuthenticated bool
	SourceIdentity   string
}

// Resource is a key or a role that a call was about.
type Resource struct {
	AccountID string
	// Type is empty for AWS::KMS::Key.
	Type string
	ARN  string
}

// AccountOf gives the account in an ARN.
func AccountOf(arn string) string {
	for range 4 {
		_, arn, _ = strings.Cut(arn, ":")
	}
	account, _, _ := strings.Cut(arn, ":")
	return account
}

// TLSDetails describe the connection of a call.
type TLSDetails struct {
	TLSVersion  string // such as TLSv1.3
	CipherSuite string // such as TLS_AES_128_GCM_SHA256
	// ClientProvidedHostHeader is the host that the client asked for.
	ClientProvidedHostHeader string
}

// ServiceEvent is the EventType of what the service did by itself.
const ServiceEvent = "AwsServiceEvent"

const (
	eventVersion  = "1.11"
	defaultSource = "kms.amazonaws.com"
	apiCall       = "AwsApiCall"
	keyType       = "AWS::KMS::Key"
	foreignCaller = "AWSAccount"
)

// Limits of CloudTrail's fields, in bytes.
const (
	maxShortText  = 1 << 10
	maxParameters = 100 << 10
	maxAdditional = 28 << 10
)

// append adds the record for one recipient to the buffer, without the brace at its end. The order of the members is that
// of CloudTrail's own records.
func (e *encoder) event(v *Event, r *Recipient, shared string) {
	e.raw(`{"eventVersion":"` + eventVersion + `","userIdentity":`)
	e.identity(&v.UserIdentity, r.AccountID)
	e.time("eventTime", v.EventTime)
	e.text("eventSource", orDefault(v.EventSource, defaultSource))
	e.text("eventName", v.EventName)
	e.text("awsRegion", v.AWSRegion)
	e.text("sourceIPAddress", v.SourceIPAddress)
	e.text("userAgent", cut(v.UserAgent, maxShortText))
	e.text("errorCode", v.ErrorCode)
	if !v.UserIdentity.foreign(r.AccountID) {
		e.text("errorMessage", cut(v.ErrorMessage, maxShortText))
	}
	e.parameters("requestParameters", v.RequestParameters, maxParameters)
	e.parameters("responseElements", v.ResponseElements, maxParameters)
	if v.AdditionalEventData != nil {
		e.parameters("additionalEventData", v.AdditionalEventData, maxAdditional)
	}
	e.text("requestID", v.RequestID)
	e.text("eventID", r.EventID)
	e.flag("readOnly", v.ReadOnly)
	e.resources(v.Resources)
	e.text("eventType", orDefault(v.EventType, apiCall))
	e.flag("managementEvent", true)
	e.text("recipientAccountId", r.AccountID)
	e.text("sharedEventID", shared)
	if v.ServiceEventDetails != nil {
		e.parameters("serviceEventDetails", v.ServiceEventDetails, maxParameters)
	}
	e.text("eventCategory", "Management")
	e.tls(v.TLS)
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// foreign tells whether the caller is of another account than the recipient of a record.
func (u *UserIdentity) foreign(recipient string) bool {
	return u.AccountID != recipient && u.AccountID != ""
}

// identity says who called. Another account learns only which account and principal that was, as with CloudTrail.
func (e *encoder) identity(u *UserIdentity, recipient string) {
	e.raw("{")
	if u.foreign(recipient) {
		e.text("type", foreignCaller)
		e.text("principalId", u.PrincipalID)
		e.text("accountId", u.AccountID)
	} else {
		e.names(u)
		e.session(u.SessionContext)
		e.text("invokedBy", u.InvokedBy)
	}
	e.raw("}")
}

func (e *encoder) names(u *UserIdentity) {
	e.text("type", u.Type)
	e.text("principalId", u.PrincipalID)
	e.text("arn", u.ARN)
	e.text("accountId", u.AccountID)
	e.text("accessKeyId", u.AccessKeyID)
	e.text("userName", u.UserName)
}

func (e *encoder) session(s *SessionContext) {
	if s == nil {
		return
	}
	e.name("sessionContext")
	e.raw("{")
	if s.Issuer != nil {
		e.name("sessionIssuer")
		e.raw("{")
		e.names(s.Issuer)
		e.raw("}")
	}
	e.name("attributes")
	e.raw("{")
	e.time("creationDate", s.CreationDate)
	e.text("mfaAuthenticated", strconv.FormatBool(s.MFAAuthenticated)) // a string in CloudTrail too
	e.raw("}")
	e.text("sourceIdentity", s.SourceIdentity)
	e.raw("}")
}

// parameters writes what an operation chose to record. What is longer than the limit is left out, as CloudTrail does.
func (e *encoder) parameters(name string, members Parameters, limit int) {
	e.name(name)
	if members == nil {
		e.raw("null")
		return
	}
	start := len(e.buf)
	e.object(members)
	if size := len(e.buf) - start; size > limit {
		e.buf = e.buf[:start]
		e.object(Parameters{
			{"omitted", Bool(true)}, {"originalSize", Int(int64(size))}, {"reason", Text(name + " too large")},
		})
	}
}

func (e *encoder) resources(resources []Resource) {
	if len(resources) == 0 {
		return
	}
	e.name("resources")
	e.raw("[")
	for i := range resources {
		if i > 0 {
			e.raw(",")
		}
		e.raw("{")
		e.text("accountId", resources[i].AccountID)
		e.text("type", orDefault(resources[i].Type, keyType))
		e.text("ARN", resources[i].ARN)
		e.raw("}")
	}
	e.raw("]")
}

func (e *encoder) tls(t *TLSDetails) {
	if t == nil {
		return
	}
	e.name("tlsDetails")
	e.raw("{")
	e.text("tlsVersion", t.TLSVersion)
	e.text("cipherSuite", t.CipherSuite)
	e.text("clientProvidedHostHeader", t.ClientProvidedHostHeader)
	e.raw("}")
}
