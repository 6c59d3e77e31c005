package kmstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"
)

// Someone is an identity that sends requests to a server, with an AWS SDK client for each API. The clients do not retry.
type Someone struct {
	aws.Credentials
	KMS *kms.Client
	IAM *iam.Client
	STS *sts.Client
}

// As gives the clients of an identity, by its credentials.
func (s *Server) As(c aws.Credentials) Someone {
	endpoint := aws.String(s.Endpoint)
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil })
	return Someone{
		Credentials: c,
		KMS:         kms.New(kms.Options{Region: Region, BaseEndpoint: endpoint, Credentials: credentials, Retryer: aws.NopRetryer{}, HTTPClient: httpClient}),
		IAM:         iam.New(iam.Options{Region: Region, BaseEndpoint: endpoint, Credentials: credentials, Retryer: aws.NopRetryer{}, HTTPClient: httpClient}),
		STS:         sts.New(sts.Options{Region: Region, BaseEndpoint: endpoint, Credentials: credentials, Retryer: aws.NopRetryer{}, HTTPClient: httpClient}),
	}
}

// Root is the root user of Account.
func (s *Server) Root() Someone { return s.As(s.Credentials()) }

// CreateAccount runs `hsmkms account create`, with a server that has an AdminSocket, and gives what it prints.
func (s *Server) CreateAccount(t testing.TB, id string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.binary, "account", "create", id, "--admin-socket", s.socket).CombinedOutput()
	return string(out), err
}

// NewAccount makes another account, of a server with an AdminSocket, and gives the clients of its root user.
func (s *Server) NewAccount(t testing.TB, id string) Someone {
	t.Helper()
	out, err := s.CreateAccount(t, id)
	require.NoError(t, err, out)
	values := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		values[name] = value
	}
	return s.As(aws.Credentials{AccessKeyID: values["AWS_ACCESS_KEY_ID"], SecretAccessKey: values["AWS_SECRET_ACCESS_KEY"]})
}

// NewUser makes a user of Account with an inline policy, "" for none, and gives its clients.
func (s *Server) NewUser(t testing.TB, name, policy string) Someone {
	t.Helper()
	return s.NewUserOf(t, s.Root(), name, policy)
}

// NewUserOf is NewUser for the account of a root user.
func (s *Server) NewUserOf(t testing.TB, root Someone, name, policy string) Someone {
	t.Helper()
	_, err := root.IAM.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name})
	require.NoError(t, err)
	if policy != "" {
		root.PutUserPolicy(t, name, policy)
	}
	out, err := root.IAM.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &name})
	require.NoError(t, err)
	return s.As(aws.Credentials{AccessKeyID: *out.AccessKey.AccessKeyId, SecretAccessKey: *out.AccessKey.SecretAccessKey})
}

// PutUserPolicy gives a user of the account a policy in the place of the one of NewUser.
func (w Someone) PutUserPolicy(t testing.TB, name, policy string) {
	t.Helper()
	_, err := w.IAM.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("own"), PolicyDocument: &policy})
	require.NoError(t, err)
}

// Session gives the clients of temporary credentials.
func (s *Server) Session(c *ststypes.Credentials) Someone {
	return s.As(aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken})
}

// IAMARN gives the ARN of something of Account in IAM, such as user/alice.
func IAMARN(resource string) string { return "arn:aws:iam::" + Account + ":" + resource }

// Statement makes a policy of one statement. Of the elements, those that are "" are left out.
func Statement(effect, principal, action, resource string) string {
	text := `{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"` + action + `"`
	if principal != "" {
		text += `,"Principal":{"AWS":"` + principal + `"}`
	}
	if resource != "" {
		text += `,"Resource":"` + resource + `"`
	}
	return text + "}]}"
}

// PostForm makes a signed request of the query protocol and sends it. The pairs are names and values in turn; the signature
// is for a service.
func (s *Server) PostForm(t testing.TB, c aws.Credentials, service string, pairs ...string) Answer {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return s.PostBody(t, c, service, "application/x-www-form-urlencoded", form.Encode())
}

// PostAs makes a request of an operation of KMS with a body of JSON text, signed by somebody, and sends it.
func (s *Server) PostAs(t testing.TB, who Someone, operation, body string, edits ...func(*http.Request)) Answer {
	t.Helper()
	edits = append([]func(*http.Request){func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService."+operation) }}, edits...)
	return s.PostBody(t, who.Credentials, "kms", "application/x-amz-json-1.1", body, edits...)
}

// PostBody makes a signed request with a body of any kind and sends it.
func (s *Server) PostBody(t testing.TB, c aws.Credentials, service, contentType, body string, edits ...func(*http.Request)) Answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint+"/", bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	r.Header.Set("Content-Type", contentType)
	for _, edit := range edits {
		edit(r)
	}
	digest := sha256.Sum256([]byte(body))
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), c, r, hex.EncodeToString(digest[:]), service, Region, time.Now()))
	return s.Send(t, r)
}
