package kms

import (
	"errors"
	"fmt"
)

// ErrorType is the name of an AWS error, as it stands in the __type member of an answer.
type ErrorType string

// The errors that the core and the wire give. The comments of the published model say when; the texts that go with
// them are AWS's own where they are known.
const (
	AccessDenied               ErrorType = "AccessDeniedException"
	AlreadyExists              ErrorType = "AlreadyExistsException"
	Conflict                   ErrorType = "ConflictException"
	CustomKeyStoreNotFound     ErrorType = "CustomKeyStoreNotFoundException"
	DependencyTimeout          ErrorType = "DependencyTimeoutException"
	Disabled                   ErrorType = "DisabledException"
	DryRunOperation            ErrorType = "DryRunOperationException"
	ExpiredToken               ErrorType = "ExpiredTokenException"
	ExpiredImportToken         ErrorType = "ExpiredImportTokenException"
	IncompleteSignature        ErrorType = "IncompleteSignatureException"
	IncorrectKey               ErrorType = "IncorrectKeyException"
	IncorrectKeyMaterial       ErrorType = "IncorrectKeyMaterialException"
	InvalidAliasName           ErrorType = "InvalidAliasNameException"
	InvalidArn                 ErrorType = "InvalidArnException"
	InvalidCiphertext          ErrorType = "InvalidCiphertextException"
	InvalidGrantID             ErrorType = "InvalidGrantIdException"
	InvalidGrantToken          ErrorType = "InvalidGrantTokenException"
	InvalidImportToken         ErrorType = "InvalidImportTokenException"
	InvalidKeyUsage            ErrorType = "InvalidKeyUsageException"
	InvalidMac                 ErrorType = "KMSInvalidMacException"
	InvalidMarker              ErrorType = "InvalidMarkerException"
	InvalidSignature           ErrorType = "InvalidSignatureException"
	InvalidKeySignature        ErrorType = "KMSInvalidSignatureException"
	InternalError              ErrorType = "KMSInternalException"
	InvalidState               ErrorType = "KMSInvalidStateException"
	KeyUnavailable             ErrorType = "KeyUnavailableException"
	LimitExceeded              ErrorType = "LimitExceededException"
	MalformedPolicyDocument    ErrorType = "MalformedPolicyDocumentException"
	MissingAuthenticationToken ErrorType = "MissingAuthenticationTokenException"
	NotFound                   ErrorType = "NotFoundException"
	Serialization              ErrorType = "SerializationException"
	TagError                   ErrorType = "TagException"
	Throttling                 ErrorType = "ThrottlingException"
	UnknownOperation           ErrorType = "UnknownOperationException"
	UnrecognizedClient         ErrorType = "UnrecognizedClientException"
	UnsupportedOperation       ErrorType = "UnsupportedOperationException"
	Validation                 ErrorType = "ValidationException"
	RequestEntityTooLarge      ErrorType = "RequestEntityTooLargeException"
)

// Error is an error that the caller of an operation may see. Every other error is internal: it is logged, and the
// caller sees a KMSInternalException without its text.
type Error struct {
	Type ErrorType
	// Message is the text of the answer; when empty, the answer has no message member at all, as AWS does for
	// InvalidCiphertextException. A ValidationException always has one.
	Message string
	// Cause, if any, is logged and never shown.
	Cause error
}

// Error gives the type, the message and the cause: it is meant for logs, not for callers of the service.
func (e *Error) Error() string {
	text := string(e.Type)
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Cause != nil {
		text += " (" + e.Cause.Error() + ")"
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error with a message for the caller.
func Errorf(t ErrorType, format string, args ...any) *Error {
	return &Error{Type: t, Message: fmt.Sprintf(format, args...)}
}

// TypeOf gives the AWS error type that a caller sees for err: KMSInternalException for everything that is not an
// *Error, "" for nil.
func TypeOf(err error) ErrorType {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Type
	}
	return InternalError
}
