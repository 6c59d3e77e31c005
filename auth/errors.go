package auth

import (
	"fmt"
	"strings"
)

// The exceptions of AWS that a request with a bad signature gets.
const (
	missingAuthenticationTokenException = "MissingAuthenticationTokenException"
	incompleteSignatureException        = "IncompleteSignatureException"
	invalidSignatureException           = "InvalidSignatureException"
	unrecognizedClientException         = "UnrecognizedClientException"
	expiredTokenException               = "ExpiredTokenException"
)

// Error says that a request does not prove who sent it. The sender may see all of it.
type Error struct {
	// Type is the name of AWS's exception: MissingAuthenticationTokenException, IncompleteSignatureException,
	// InvalidSignatureException, UnrecognizedClientException or ExpiredTokenException.
	Type string
	// Message is AWS's text. It ends with a space where AWS's does.
	//
	// AWS repeats the Authorization header in some of its messages. We never do, nor the access key ID: a client whose
	// settings are mixed up sends its secret there, and messages go to logs.
	Message string
}

// Error gives the type and the message.
func (e *Error) Error() string { return e.Type + ": " + e.Message }

func incomplete(message string) *Error {
	return &Error{Type: incompleteSignatureException, Message: message}
}

func invalid(format string, args ...any) *Error {
	return &Error{Type: invalidSignatureException, Message: fmt.Sprintf(format, args...)}
}

func unrecognizedClient() *Error {
	return &Error{
		Type:    unrecognizedClientException,
		Message: "The security token included in the request is invalid.",
	}
}

func expiredToken() *Error {
	return &Error{Type: expiredTokenException, Message: "The security token included in the request is expired"}
}

func missingToken() *Error {
	return &Error{Type: missingAuthenticationTokenException, Message: "Missing Authentication Token"}
}

func mismatch() *Error {
	return invalid("The request signature we calculated does not match the signature you provided. Check your AWS " +
		"Secret Access Key and signing method. Consult the service documentation for details.")
}

// badDate shows the sender the start of the date that it sent.
func badDate(date string) *Error {
	const shown = 64
	date = strings.ToValidUTF8(date[:min(len(date), shown)], "")
	return incomplete("Date must be in ISO-8601 'basic format'. Got '" + date +
		"'. See http://en.wikipedia.org/wiki/ISO_8601")
}
