package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// peopleEach is how many people are made, at least, before the server is killed.
const peopleEach = 12

// TestIdentitiesSurviveACrash kills the server again and again while users, roles, policies and access keys are made, changed
// and deleted. What was acknowledged is in force afterwards: who was let in gets in, and who was shut out does not.
func TestIdentitiesSurviveACrash(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	c := &crowd{key: s.NewKey(t)}
	shown := map[string]int{}
	for range 6 {
		c.grow(t, s)
		require.NoError(t, s.Run())
		for _, p := range c.people {
			p.verify(t, s, shown)
		}
	}
	t.Log(len(c.people), "people;", shown)
	for i := range gifts {
		for _, has := range []bool{true, false} {
			require.NotZero(t, shown[gifts[i].said(has)], gifts[i].said(has))
		}
	}
}

// crowd is people that may use a key as far as policies let them.
type crowd struct {
	key    string
	mu     sync.Mutex
	people []*person
}

// grow makes people until the server is killed.
func (c *crowd) grow(t *testing.T, s *kmstest.Server) {
	t.Helper()
	var done atomic.Int64
	ends := make(chan error, workers)
	for range workers {
		go func() { ends <- c.add(s, &done) }()
	}
	eventually(t, func() bool { return done.Load() >= peopleEach || len(ends) > 0 }, "nobody is made")
	time.Sleep(rand.N(aim))
	require.NoError(t, s.Kill())
	for range workers {
		require.NoError(t, <-ends)
	}
}

// add makes people until the server does not answer any more. It fails if the server refuses something.
func (c *crowd) add(s *kmstest.Server, done *atomic.Int64) error {
	for ; ; done.Add(1) {
		err := c.newPerson().live(s)
		var refusal smithy.APIError
		if errors.As(err, &refusal) {
			return err
		}
		if err != nil {
			return nil //nolint:nilerr // the server is gone
		}
	}
}

func (c *crowd) newPerson() *person {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &person{name: fmt.Sprint("person", len(c.people)), key: c.key, leaves: rand.N(4) == 0, has: map[string]bool{}}
	c.people = append(c.people, p)
	return p
}

// person is a user, with a role and a managed policy of the same name.
type person struct {
	name, key     string
	leaves        bool // in the end
	first, second aws.Credentials
	session       *ststypes.Credentials // of the role
	// has is what the server acknowledged, by gift; what was under way when it was killed is not in it.
	has map[string]bool
}

// gift is what a person can be given and can lose.
type gift struct {
	name       string
	alone      bool // it can be lost without all others
	give, take func(*person, *kmstest.Server) error
	// show is refused if the person does not have it.
	show func(*person, *kmstest.Server) error
}

// gifts are in the order in which they are given; they are lost in the reverse one.
var gifts = []gift{
	{"user", false, (*person).createUser, (*person).deleteUser, (*person).getUser},
	{"first access key", false, (*person).createFirstKey, (*person).deleteFirstKey, (*person).useFirstKey},
	{"managed policy", false, (*person).createPolicy, (*person).deletePolicy, (*person).getPolicy},
	{"role", false, (*person).createRole, (*person).deleteRole, (*person).getRole},
	{"second access key", true, (*person).createSecondKey, (*person).endSecondKey, (*person).useSecondKey},
	{"user policy", true, (*person).putUserPolicy, (*person).endUserPolicy, (*person).useUserPolicy},
	{"attached policy", true, (*person).attachPolicy, (*person).detachPolicy, (*person).useAttachedPolicy},
	{"role policy in a session", true, (*person).putRolePolicy, (*person).deleteRolePolicy, (*person).useRolePolicy},
}

func (g *gift) said(has bool) string { return fmt.Sprintf("%s: %t", g.name, has) }

// live has the person given everything, and lose some or all of it.
func (p *person) live(s *kmstest.Server) error {
	for i := range gifts {
		if err := p.change(&gifts[i], true, func() error { return gifts[i].give(p, s) }); err != nil {
			return err
		}
	}
	for i := len(gifts) - 1; i >= 0; i-- {
		if !p.leaves && (!gifts[i].alone || rand.N(2) == 0) {
			continue
		}
		if err := p.change(&gifts[i], false, func() error { return gifts[i].take(p, s) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *person) change(g *gift, to bool, request func() error) error {
	delete(p.has, g.name)
	err := request()
	if err == nil {
		p.has[g.name] = to
	}
	return err
}

// shutOut are the codes with which the services refuse who has no right, or no access key, and what is not there.
var shutOut = []string{"AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException", "NoSuchEntity"}

// verify tries what the person was given and what it lost, and counts that in shown.
func (p *person) verify(t *testing.T, s *kmstest.Server, shown map[string]int) {
	t.Helper()
	for i := range gifts {
		has, acknowledged := p.has[gifts[i].name]
		if !acknowledged {
			continue
		}
		err := gifts[i].show(p, s)
		shown[gifts[i].said(has)]++
		if has {
			require.NoError(t, err, "%s: %s", p.name, gifts[i].name)
			continue
		}
		var refusal smithy.APIError
		require.ErrorAs(t, err, &refusal, "%s: %s", p.name, gifts[i].name)
		require.Contains(t, shutOut, refusal.ErrorCode())
	}
}

// only drops the answer of a request.
func only[T any](_ T, err error) error { return err }

func (p *person) createUser(s *kmstest.Server) error {
	return only(s.Root().IAM.CreateUser(background, &iam.CreateUserInput{UserName: &p.name}))
}

func (p *person) deleteUser(s *kmstest.Server) error {
	return only(s.Root().IAM.DeleteUser(background, &iam.DeleteUserInput{UserName: &p.name}))
}

func (p *person) getUser(s *kmstest.Server) error {
	return only(s.Root().IAM.GetUser(background, &iam.GetUserInput{UserName: &p.name}))
}

// createKey makes an access key.
func (p *person) createKey(s *kmstest.Server, key *aws.Credentials) error {
	out, err := s.Root().IAM.CreateAccessKey(background, &iam.CreateAccessKeyInput{UserName: &p.name})
	if err == nil {
		*key = aws.Credentials{AccessKeyID: *out.AccessKey.AccessKeyId, SecretAccessKey: *out.AccessKey.SecretAccessKey}
	}
	return err
}

func (p *person) deleteKey(s *kmstest.Server, key *aws.Credentials) error {
	return only(s.Root().IAM.DeleteAccessKey(background, &iam.DeleteAccessKeyInput{UserName: &p.name, AccessKeyId: &key.AccessKeyID}))
}

func useKey(s *kmstest.Server, key *aws.Credentials) error {
	return only(s.As(*key).STS.GetCallerIdentity(background, &sts.GetCallerIdentityInput{}))
}

func (p *person) createFirstKey(s *kmstest.Server) error { return p.createKey(s, &p.first) }

func (p *person) deleteFirstKey(s *kmstest.Server) error { return p.deleteKey(s, &p.first) }

func (p *person) useFirstKey(s *kmstest.Server) error { return useKey(s, &p.first) }

func (p *person) createSecondKey(s *kmstest.Server) error { return p.createKey(s, &p.second) }

// endSecondKey deletes the key, or has it stay without being of use.
func (p *person) endSecondKey(s *kmstest.Server) error {
	if p.leaves || rand.N(2) == 0 {
		return p.deleteKey(s, &p.second)
	}
	return only(s.Root().IAM.UpdateAccessKey(background, &iam.UpdateAccessKeyInput{
		UserName: &p.name, AccessKeyId: &p.second.AccessKeyID, Status: iamtypes.StatusTypeInactive,
	}))
}

func (p *person) useSecondKey(s *kmstest.Server) error { return useKey(s, &p.second) }

// allowing is a policy that allows an operation.
func allowing(operation string) *string {
	return aws.String(kmstest.Statement("Allow", "", "kms:"+operation, "*"))
}

// policyName is the name of all inline policies.
var policyName = aws.String("own")

func (p *person) putUserPolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.PutUserPolicy(background, &iam.PutUserPolicyInput{UserName: &p.name, PolicyName: policyName, PolicyDocument: allowing("DescribeKey")}))
}

// endUserPolicy deletes the policy, or puts one in its place that does not allow the same.
func (p *person) endUserPolicy(s *kmstest.Server) error {
	if p.leaves || rand.N(2) == 0 {
		return only(s.Root().IAM.DeleteUserPolicy(background, &iam.DeleteUserPolicyInput{UserName: &p.name, PolicyName: policyName}))
	}
	return only(s.Root().IAM.PutUserPolicy(background, &iam.PutUserPolicyInput{UserName: &p.name, PolicyName: policyName, PolicyDocument: allowing("Encrypt")}))
}

func (p *person) useUserPolicy(s *kmstest.Server) error { return p.describe(s.As(p.first)) }

func (p *person) describe(who kmstest.Someone) error {
	return only(who.KMS.DescribeKey(background, &kms.DescribeKeyInput{KeyId: aws.String(kmstest.KeyARN(p.key))}))
}

func (p *person) policyARN() *string { return aws.String(kmstest.IAMARN("policy/" + p.name)) }

func (p *person) createPolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.CreatePolicy(background, &iam.CreatePolicyInput{PolicyName: &p.name, PolicyDocument: allowing("GetKeyPolicy")}))
}

func (p *person) deletePolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.DeletePolicy(background, &iam.DeletePolicyInput{PolicyArn: p.policyARN()}))
}

func (p *person) getPolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.GetPolicy(background, &iam.GetPolicyInput{PolicyArn: p.policyARN()}))
}

func (p *person) attachPolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.AttachUserPolicy(background, &iam.AttachUserPolicyInput{UserName: &p.name, PolicyArn: p.policyARN()}))
}

func (p *person) detachPolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.DetachUserPolicy(background, &iam.DetachUserPolicyInput{UserName: &p.name, PolicyArn: p.policyARN()}))
}

func (p *person) useAttachedPolicy(s *kmstest.Server) error {
	return only(s.As(p.first).KMS.GetKeyPolicy(background, &kms.GetKeyPolicyInput{KeyId: aws.String(kmstest.KeyARN(p.key))}))
}

func (p *person) createRole(s *kmstest.Server) error {
	trust := kmstest.Statement("Allow", kmstest.IAMARN("user/"+p.name), "sts:AssumeRole", "")
	return only(s.Root().IAM.CreateRole(background, &iam.CreateRoleInput{RoleName: &p.name, AssumeRolePolicyDocument: &trust}))
}

func (p *person) deleteRole(s *kmstest.Server) error {
	return only(s.Root().IAM.DeleteRole(background, &iam.DeleteRoleInput{RoleName: &p.name}))
}

func (p *person) getRole(s *kmstest.Server) error {
	return only(s.Root().IAM.GetRole(background, &iam.GetRoleInput{RoleName: &p.name}))
}

// putRolePolicy gives the role its policy, and the person a session in which it counts.
func (p *person) putRolePolicy(s *kmstest.Server) error {
	_, err := s.Root().IAM.PutRolePolicy(background, &iam.PutRolePolicyInput{RoleName: &p.name, PolicyName: policyName, PolicyDocument: allowing("DescribeKey")})
	if err != nil {
		return err
	}
	out, err := s.As(p.first).STS.AssumeRole(background, &sts.AssumeRoleInput{RoleArn: aws.String(kmstest.IAMARN("role/" + p.name)), RoleSessionName: &p.name})
	if err == nil {
		p.session = out.Credentials
	}
	return err
}

func (p *person) deleteRolePolicy(s *kmstest.Server) error {
	return only(s.Root().IAM.DeleteRolePolicy(background, &iam.DeleteRolePolicyInput{RoleName: &p.name, PolicyName: policyName}))
}

func (p *person) useRolePolicy(s *kmstest.Server) error { return p.describe(s.Session(p.session)) }
