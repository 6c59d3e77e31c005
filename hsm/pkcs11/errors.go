package pkcs11

import (
	"errors"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// classes reads the return codes of PKCS#11 (section 5.1 of the base specification). What is not listed is
// hsm.Failed. CKR_GENERAL_ERROR and CKR_FUNCTION_FAILED are not listed on purpose: some tokens answer a forged
// ciphertext with them and others mean that they are broken, so the call site decides (see session.decrypt).
var classes = map[uint]hsm.Class{
	p11.CKR_ENCRYPTED_DATA_INVALID:         hsm.BadInput,
	p11.CKR_ENCRYPTED_DATA_LEN_RANGE:       hsm.BadInput,
	p11.CKR_DATA_INVALID:                   hsm.BadInput,
	p11.CKR_DATA_LEN_RANGE:                 hsm.BadInput,
	p11.CKR_OBJECT_HANDLE_INVALID:          hsm.KeyMissing,
	p11.CKR_KEY_HANDLE_INVALID:             hsm.KeyMissing,
	p11.CKR_WRAPPING_KEY_HANDLE_INVALID:    hsm.KeyMissing,
	p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID:  hsm.KeyMissing,
	p11.CKR_SESSION_CLOSED:                 hsm.SessionDead,
	p11.CKR_SESSION_HANDLE_INVALID:         hsm.SessionDead,
	p11.CKR_OPERATION_ACTIVE:               hsm.SessionDead,
	p11.CKR_OPERATION_NOT_INITIALIZED:      hsm.SessionDead,
	p11.CKR_DEVICE_ERROR:                   hsm.TokenGone,
	p11.CKR_DEVICE_REMOVED:                 hsm.TokenGone,
	p11.CKR_TOKEN_NOT_PRESENT:              hsm.TokenGone,
	p11.CKR_TOKEN_NOT_RECOGNIZED:           hsm.TokenGone,
	p11.CKR_SLOT_ID_INVALID:                hsm.TokenGone,
	p11.CKR_CRYPTOKI_NOT_INITIALIZED:       hsm.TokenGone,
	p11.CKR_USER_NOT_LOGGED_IN:             hsm.TokenGone,
	p11.CKR_SESSION_COUNT:                  hsm.Busy,
	p11.CKR_DEVICE_MEMORY:                  hsm.TokenFull,
	p11.CKR_MECHANISM_INVALID:              hsm.Unsupported,
	p11.CKR_MECHANISM_PARAM_INVALID:        hsm.Unsupported,
	p11.CKR_FUNCTION_NOT_SUPPORTED:         hsm.Unsupported,
	p11.CKR_PIN_INCORRECT:                  hsm.LoginFailed,
	p11.CKR_PIN_INVALID:                    hsm.LoginFailed,
	p11.CKR_PIN_LEN_RANGE:                  hsm.LoginFailed,
	p11.CKR_PIN_EXPIRED:                    hsm.LoginFailed,
	p11.CKR_PIN_LOCKED:                     hsm.LoginFailed,
	p11.CKR_USER_PIN_NOT_INITIALIZED:       hsm.LoginFailed,
	p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: hsm.LoginFailed,
}

// failure makes the error for a return code other than CKR_OK.
func failure(function string, rv uint) *hsm.Error {
	class, known := classes[rv]
	if !known {
		class = hsm.Failed
	}
	return &hsm.Error{Class: class, Function: function, Code: rv}
}

// result is failure for a return code that may be CKR_OK.
func result(function string, rv uint) error {
	if rv == p11.CKR_OK {
		return nil
	}
	return failure(function, rv)
}

// failed translates an error of the miekg binding.
func failed(function string, err error) error {
	if err == nil {
		return nil
	}
	var rv p11.Error
	if errors.As(err, &rv) {
		return failure(function, uint(rv))
	}
	return &hsm.Error{Class: hsm.Failed, Function: function, Cause: err}
}

// reclassed gives err another class.
func reclassed(err error, class hsm.Class) error {
	var e *hsm.Error
	if !errors.As(err, &e) {
		return &hsm.Error{Class: class, Cause: err}
	}
	other := *e
	other.Class = class
	return &other
}

// isCode tells whether err is the given return code.
func isCode(err error, codes ...uint) bool {
	var e *hsm.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}
