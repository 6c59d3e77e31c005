package hsmtest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:embed faultp11.c
var faultSource []byte

// Fault is a PKCS#11 module that stands in front of SoftHSM and misbehaves as its rules say. It serves this process, and
// child processes that get Env.
//
// A rule is a line: the name of a function, or * for all of them, and what happens to calls of it. The first rule with
// calls left decides; a rule without any effect lets the call pass.
//
//	C_Decrypt rv=0x30 count=3 skip=2 every=5 until=C_Initialize delay_ms=200 hang=1 kill=1 when=after
//
//	rv        return this code instead of calling SoftHSM
//	delay_ms  sleep before
//	hang=1    wait until no rule in force has the function hang
//	kill=1    kill the process with SIGKILL
//	when      "after": let SoftHSM do its work first, and then do the above
//	skip      the first N calls pass on to the next rules
//	every     only every N-th call is hit
//	count     at most N calls are hit
//	until     the rule ends for good when this function is called, for which it does not hold any more
//	emulate   not a fault, but another make of HSM, whatever the function: iv_in_place and iv_appended make IVs in the
//	          module (see pkcs11.IVMode), wrap_pkcs7 makes CKM_AES_KEY_WRAP_PAD the longer of its two meanings, wrap_kwp
//	          has CKM_AES_KEY_WRAP_KWP in its place, oaep_sha256 unwraps secret keys with CKM_RSA_PKCS_OAEP and SHA-256, oaep_fills
//	          does so too and fills up keys of less than 32 bytes with zeros
//
// The functions that rules can name are listed in faultp11.c. A rule that cannot be read aborts the process.
type Fault struct {
	// Module is the path of the library.
	Module string
	// Env holds the variables that a child process needs, NAME=value, SOFTHSM2_CONF among them.
	Env []string

	t          testing.TB
	rules, log string
}

// NewFault builds the module with the C compiler cc in a temporary folder and sets the environment of this process. It
// begins without rules.
func NewFault(t testing.TB, soft SoftHSM) *Fault {
	t.Helper()
	dir := t.TempDir()
	f := &Fault{Module: filepath.Join(dir, "faultp11.so"), t: t, rules: filepath.Join(dir, "rules"), log: filepath.Join(dir, "log")}
	f.build(dir)
	t.Setenv("FAULTP11_MODULE", soft.Module)
	t.Setenv("FAULTP11_RULES", f.rules)
	t.Setenv("FAULTP11_LOG", f.log)
	f.Env = []string{
		"FAULTP11_MODULE=" + soft.Module, "FAULTP11_RULES=" + f.rules, "FAULTP11_LOG=" + f.log, "SOFTHSM2_CONF=" + soft.Config,
	}
	f.Clear()
	return f
}

func (f *Fault) build(dir string) {
	f.t.Helper()
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	require.NoError(f.t, err, "finding the PKCS#11 headers")
	source := filepath.Join(dir, "faultp11.c")
	require.NoError(f.t, os.WriteFile(source, faultSource, 0o600))
	out, err := exec.Command("cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread",
		"-I", strings.TrimSpace(string(headers)), "-o", f.Module, source, "-ldl").CombinedOutput()
	require.NoError(f.t, err, "building the fault module (is there a C compiler?): %s", out)
}

// Set puts rules in the place of those in force, from the next call into the module on. Calls that hang go on if no new
// rule has them hang.
func (f *Fault) Set(rules ...string) {
	f.t.Helper()
	next := f.rules + ".next" // the module must never see half a file
	require.NoError(f.t, os.WriteFile(next, []byte(strings.Join(rules, "\n")+"\n"), 0o600))
	require.NoError(f.t, os.Rename(next, f.rules))
}

// Clear removes all rules.
func (f *Fault) Clear() {
	f.t.Helper()
	f.Set()
}

// Calls tells how often a function of the module was called so far, whatever became of the call. Only functions that
// rules can name are counted.
func (f *Fault) Calls(function string) int {
	f.t.Helper()
	log, err := os.ReadFile(f.log)
	if os.IsNotExist(err) {
		return 0 // not loaded yet
	}
	require.NoError(f.t, err)
	return strings.Count(string(log), function+"\n") // no name ends in another
}
