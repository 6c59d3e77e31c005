package iam

import (
	"errors"
	"fmt"
)

// ErrorType is the code of an AWS error of the IAM and STS APIs.
type ErrorType string

// The errors of the two services, by AWS's codes.
const (
	AccessDenied            ErrorType = "AccessDenied"
	DeleteConflict          ErrorType = "DeleteConflict"
	EntityAlreadyExists     ErrorType = "EntityAlreadyExists"
	InvalidClientTokenID    ErrorType = "InvalidClientTokenId"
	InvalidInput            ErrorType = "InvalidInput"
	LimitExceeded           ErrorType = "LimitExceeded"
	MalformedPolicyDocument ErrorType = "MalformedPolicyDocument"
	NoSuchEntity            ErrorType = "NoSuchEntity"
	PackedPolicyTooLarge    ErrorType = "PackedPolicyTooLarge"
	ServiceUnavailable      ErrorType = "ServiceUnavailable"
	ValidationError         ErrorType = "ValidationError"
)

// Error is an error that the caller of an operation may see. Every other error is internal: it is logged, and its text
// never shown.
type Error struct {
	Type    ErrorType
	Message string
	// Cause, if any, is logged and never shown.
	Cause error
}

// Error gives the type, the message and the cause: it is meant for logs, not for callers of the service.
func (e *Error) Error() string {
	text := string(e.Type) + ": " + e.Message
	if e.Cause != nil {
		text += " (" + e.Cause.Error() + ")"
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

func errorf(t ErrorType, format string, args ...any) *Error {
	return &Error{Type: t, Message: fmt.Sprintf(format, args...)}
}

var (
	// ErrAccountID says that an account id is not 12 digits.
	ErrAccountID = errors.New("an account id has 12 digits")
	// ErrAccountExists says that there is an account with that id.
	ErrAccountExists = errors.New("the account exists")
	// ErrNoAccount says that there is no account with that id.
	ErrNoAccount = errors.New("there is no such account")
)

func noSuch(k kind, name string) error {
	return errorf(NoSuchEntity, "The %s with name %s cannot be found.", k, name)
}
