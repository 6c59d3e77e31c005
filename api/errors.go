package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"hsmkms/auth"
	"hsmkms/iam"
	"hsmkms/kms"
)

// errorBody is the body of an error answer. AWS's modelled errors have a lower-case message; some have none.
type errorBody struct {
	Type    kms.ErrorType `json:"__type"`
	Message *string       `json:"message,omitempty"`
}

// internalMessage is all that a caller learns of an internal error.
const internalMessage = "An internal error occurred. The request can be retried."

// failure is what the caller and the operator may know of an error.
type failure struct {
	// code is the error's name on the wire.
	code    string
	message string
	status  int
}

// describe makes of an error what its caller may know, in the words of the service that it is for.
func (a *service) describe(err error) failure {
	if a.model.query() {
		code, message := queryError(err)
		return failure{code: string(code), message: message, status: a.status(code)}
	}
	f := failure{code: string(kms.InternalError), message: internalMessage, status: http.StatusBadRequest}
	var shown *kms.Error
	if errors.As(err, &shown) {
		f.code, f.message = string(shown.Type), shown.Message
	}
	if a.model.isFault(kms.ErrorType(f.code)) {
		f.status = http.StatusInternalServerError
	}
	return f
}

// queryError gives the code and the message of an error in the query protocol.
func queryError(err error) (iam.ErrorType, string) {
	var ours *iam.Error
	if errors.As(err, &ours) {
		return ours.Type, ours.Message
	}
	var shared *kms.Error
	if errors.As(kms.TokenError(err), &shared) {
		if code, known := queryCodes[shared.Type]; known {
			return code, shared.Message
		}
	}
	return internalFailure, internalMessage
}

// writeError writes the body of an error answer.
func (a *service) writeError(out *bytes.Buffer, f failure, id string) {
	if a.model.query() {
		a.errorAnswer(out, f.code, f.message, id, f.status)
		return
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	// A struct of two strings can always be encoded.
	body := errorBody{Type: kms.ErrorType(f.code), Message: &f.message}
	if f.message == "" && body.Type != kms.Validation { // which has an empty one then, unlike the others
		body.Message = nil
	}
	_ = encoder.Encode(body)
	out.Truncate(out.Len() - 1)
}

// authError translates a failure of the verification of a signature.
func authError(err error) error {
	var refused *auth.Error
	if errors.As(err, &refused) {
		return &kms.Error{Type: kms.ErrorType(refused.Type), Message: refused.Message}
	}
	return kms.TokenError(err) // the secret of the access key may be out of reach
}

// causeOf gives what the log says of an error besides its type: never its message, which may repeat the request.
func causeOf(err error) error {
	if err == nil { // which errors.As would find out at some cost
		return nil
	}
	var shown *kms.Error
	if errors.As(err, &shown) {
		return shown.Cause
	}
	var ours *iam.Error
	if errors.As(err, &ours) {
		return ours.Cause
	}
	return err
}
