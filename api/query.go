package api

import (
	"bytes"
	"encoding/xml"
	"mime"
	"reflect"
	"strings"

	"hsmkms/iam"
	"hsmkms/kms"
)

// The query protocol, in which IAM and STS are served: a form names an Action and the Version of the API, and the answer is
// XML. Which of the two services a request is for is in the credential scope of its signature; the action must be one of that
// service.

const (
	formType = "application/x-www-form-urlencoded"
	xmlType  = "text/xml"
)

// The errors of the protocol itself.
const (
	invalidAction        iam.ErrorType = "InvalidAction"
	malformedInputType   iam.ErrorType = "MalformedInput"
	malformedQueryString iam.ErrorType = "MalformedQueryString"
	missingAction        iam.ErrorType = "MissingAction"
)

// isForm tells a request in the query protocol from one in AWS JSON.
func isForm(header string) bool {
	if header == contentType { // nearly all requests
		return false
	}
	media, _, err := mime.ParseMediaType(header)
	return err == nil && media == formType
}

// action finds the operation that a form is for.
func (a *service) action(f *form) (string, endpoint, error) {
	name := f.get("Action")
	if name == "" {
		return "", endpoint{}, &iam.Error{Type: missingAction, Message: "The request must contain the parameter Action."}
	}
	e, known := a.endpoints[name]
	if !known || f.get("Version") != a.model.Metadata.APIVersion {
		return "", endpoint{}, &iam.Error{Type: invalidAction, Message: "Could not find operation " + name + " for version " + f.get("Version")}
	}
	return name, e, nil
}

// writeResult writes the answer of an operation, and wipes the secrets of its output.
func (a *service) writeResult(out *bytes.Buffer, x *exchange, e endpoint, result any) {
	if w, ok := result.(wiper); ok {
		defer w.Wipe()
	}
	openAnswer(out, a, x.request.Operation+"Response")
	if wrapper := a.model.Operations[x.request.Operation].Output.ResultWrapper; wrapper != "" {
		element(out, wrapper, func() { e.output.writeXML(out, reflect.ValueOf(result).Elem()) })
	}
	element(out, "ResponseMetadata", func() { element(out, "RequestId", func() { out.WriteString(x.request.ID) }) })
	out.WriteString("</" + x.request.Operation + "Response>\n")
}

func openAnswer(out *bytes.Buffer, a *service, name string) {
	out.WriteString("<" + name + ` xmlns="` + a.model.Metadata.XMLNamespace + `">`)
}

// queryCodes are the codes that errors have in the query protocol when they come from what it shares with AWS JSON. Other
// types of that kind are an InternalFailure.
var queryCodes = map[kms.ErrorType]iam.ErrorType{
	kms.ExpiredToken:               "ExpiredToken",
	kms.IncompleteSignature:        "IncompleteSignature",
	kms.InvalidSignature:           "SignatureDoesNotMatch",
	kms.MissingAuthenticationToken: "MissingAuthenticationToken",
	kms.RequestEntityTooLarge:      "RequestEntityTooLarge",
	kms.Serialization:              malformedQueryString,
	kms.Throttling:                 "Throttling",
	kms.UnrecognizedClient:         iam.InvalidClientTokenID,
	kms.Validation:                 iam.ValidationError,
	kms.KeyUnavailable:             iam.ServiceUnavailable,
	kms.DependencyTimeout:          iam.ServiceUnavailable,
}

// internalFailure is the code of errors that are not for the caller.
const internalFailure iam.ErrorType = "InternalFailure"

// queryStatuses are the HTTP statuses of errors that no model lists; others have 400.
var queryStatuses = map[iam.ErrorType]int{
	iam.AccessDenied:             403,
	iam.InvalidClientTokenID:     403,
	"ExpiredToken":               403,
	"MissingAuthenticationToken": 403,
	"SignatureDoesNotMatch":      403,
	internalFailure:              500,
	iam.ServiceUnavailable:       503,
}

// errorAnswer is the body of an error in the query protocol.
func (a *service) errorAnswer(out *bytes.Buffer, code, message, id string, status int) {
	openAnswer(out, a, "ErrorResponse")
	element(out, "Error", func() {
		kind := "Sender"
		if status >= 500 {
			kind = "Receiver"
		}
		element(out, "Type", func() { out.WriteString(kind) })
		element(out, "Code", func() { out.WriteString(code) })
		element(out, "Message", func() { _ = xml.EscapeText(out, []byte(strings.ToValidUTF8(message, ""))) })
	})
	element(out, "RequestId", func() { out.WriteString(id) })
	out.WriteString("</ErrorResponse>\n")
}

// status gives the HTTP status of an error.
func (a *service) status(code iam.ErrorType) int {
	if status, listed := a.model.statuses[string(code)]; listed {
		return status
	}
	if status, known := queryStatuses[code]; known {
		return status
	}
	return 400
}
