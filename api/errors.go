package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"hsmkms/auth"
	"hsmkms/kms"
)

// errorBody is the body of an error answer. AWS's modelled errors have a lower-case message; some have none.
type errorBody struct {
	Type    kms.ErrorType `json:"__type"`
	Message *string       `json:"message,omitempty"`
}

// internalMessage is all that a caller learns of an internal error.
const internalMessage = "An internal error occurred. The request can be retried."

// writeError writes the body of an error answer and gives its status: 500 for what the model calls a fault, 400 else.
func (s *Server) writeError(out *bytes.Buffer, err error) int {
	text := internalMessage
	body := errorBody{Type: kms.InternalError, Message: &text}
	var shown *kms.Error
	if errors.As(err, &shown) {
		body.Type, text = shown.Type, shown.Message
		if text == "" && shown.Type != kms.Validation { // which has an empty one then, unlike the others
			body.Message = nil
		}
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	// A struct of strings can always be encoded.
	_ = encoder.Encode(body)
	out.Truncate(out.Len() - 1)
	if s.isFault(body.Type) {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

func (s *Server) isFault(t kms.ErrorType) bool { return s.model.isFault(t) }

// authError translates a failure of the verification of a signature.
func authError(err error) error {
	var refused *auth.Error
	if errors.As(err, &refused) {
		return &kms.Error{Type: kms.ErrorType(refused.Type), Message: refused.Message}
	}
	return kms.TokenError(err) // the secret of the access key may be out of reach
}
