package hsm

import (
	"errors"
	"fmt"
)

// Class says what a failure means for the caller. Implementations derive it from return codes in one table, never from
// text.
type Class string

// The classes of failures.
const (
	// BadInput: the data does not fit the key: a forged or damaged ciphertext, another IV or AAD.
	BadInput Class = "bad_input"
	// TooLong: the plaintext is longer than the algorithm takes.
	TooLong Class = "too_long"
	// WrongMaterial: imported key material was decrypted, but is not a key of the kind that was asked for.
	WrongMaterial Class = "wrong_material"
	// KeyMissing: the token does not have the key.
	KeyMissing Class = "key_missing"
	// SessionDead: the session is lost; another one may work.
	SessionDead Class = "session_dead"
	// TokenGone: the token or its module is out of reach; it is being re-opened.
	TokenGone Class = "token_gone"
	// Busy: every session was in use, or the token did not answer, until the deadline.
	Busy Class = "busy"
	// TokenFull: the token has no room for another object.
	TokenFull Class = "token_full"
	// Unsupported: the token cannot do this.
	Unsupported Class = "unsupported"
	// LoginFailed: the PIN is wrong, expired or locked. It is never tried again by itself.
	LoginFailed Class = "login_failed"
	// Failed: anything else; a fault of the token or of this program.
	Failed Class = "failed"
)

// Error is a failure of a token.
type Error struct {
	Class Class
	// Function is the PKCS#11 function that failed, such as C_Decrypt; empty if none was called.
	Function string
	// Code is its return value (CK_RV), 0 if none was called.
	Code uint
	// Source is set by ReEncrypt when the decryption failed, not the encryption.
	Source bool
	// Cause, if any, says more.
	Cause error
}

// Error names the function, the code and the class. It never holds data of a caller.
func (e *Error) Error() string {
	text := "token: " + string(e.Class)
	if e.Function != "" {
		text += ": " + e.Function
	}
	if e.Code != 0 {
		text += fmt.Sprintf(" returned 0x%x", e.Code)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ClassOf gives the class of err: "" for nil, Failed for an error that is not a token's.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Failed
}
