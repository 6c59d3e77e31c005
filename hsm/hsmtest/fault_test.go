package hsmtest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"
)

// bench is the fault module in this process, with a session of its token.
type bench struct {
	t       *testing.T
	fault   *Fault
	ctx     *p11.Ctx
	session p11.SessionHandle
}

func newBench(t *testing.T) *bench {
	t.Helper()
	soft := New(t)
	soft.Token(t, "bench")
	b := &bench{t: t, fault: NewFault(t, soft)}
	b.ctx = p11.New(b.fault.Module)
	require.NotNil(t, b.ctx)
	require.NoError(t, b.ctx.Initialize())
	t.Cleanup(func() {
		b.fault.Clear()
		require.NoError(t, b.ctx.Finalize())
	})
	slots, err := b.ctx.GetSlotList(true)
	require.NoError(t, err)
	b.session, err = b.ctx.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	require.NoError(t, err)
	return b
}

// codes gives the return codes of n calls of C_GetSessionInfo.
func (b *bench) codes(n int) []uint {
	codes := make([]uint, n)
	for i := range codes {
		if _, err := b.ctx.GetSessionInfo(b.session); err != nil {
			code, ok := err.(p11.Error) //nolint:errorlint // the binding does not wrap
			require.True(b.t, ok)
			codes[i] = uint(code)
		}
	}
	return codes
}

func TestFaultRules(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		rules []string
		want  []uint
	}{
		"none":                    {nil, []uint{0, 0}},
		"comment":                 {[]string{"# C_GetSessionInfo rv=5", ""}, []uint{0, 0}},
		"always":                  {[]string{"C_GetSessionInfo rv=0x30"}, []uint{0x30, 0x30, 0x30}},
		"decimal":                 {[]string{"C_GetSessionInfo rv=48"}, []uint{0x30}},
		"all functions":           {[]string{"* rv=6"}, []uint{6, 6}},
		"another function":        {[]string{"C_Login rv=6"}, []uint{0, 0}},
		"count":                   {[]string{"C_GetSessionInfo rv=5 count=2"}, []uint{5, 5, 0, 0}},
		"skip":                    {[]string{"C_GetSessionInfo rv=5 skip=2 count=1"}, []uint{0, 0, 5, 0}},
		"every":                   {[]string{"C_GetSessionInfo rv=5 every=3"}, []uint{0, 0, 5, 0, 0, 5, 0}},
		"every after skip, twice": {[]string{"C_GetSessionInfo rv=5 skip=1 every=2 count=2"}, []uint{0, 0, 5, 0, 5, 0, 0}},
		"one after the other":     {[]string{"C_GetSessionInfo rv=5 count=1", "* rv=6 count=1"}, []uint{5, 6, 0}},
		"first rule wins":         {[]string{"C_GetSessionInfo rv=5", "* rv=6"}, []uint{5, 5}},
		"exception":               {[]string{"C_GetSessionInfo", "* rv=6"}, []uint{0, 0}},
		"exception for a while":   {[]string{"C_GetSessionInfo count=1", "* rv=6"}, []uint{0, 6}},
		"success is a code too":   {[]string{"C_GetSessionInfo rv=0"}, []uint{0}},
		"until itself":            {[]string{"C_GetSessionInfo rv=5 until=C_GetSessionInfo"}, []uint{0, 0}},
		"until another":           {[]string{"C_GetSessionInfo rv=5 until=C_Login"}, []uint{5, 5}},
		"emulation is no rule":    {[]string{"C_GetSessionInfo emulate=iv_in_place", "* rv=6"}, []uint{6}},
	} {
		b.fault.Set(c.rules...)
		require.Equal(t, c.want, b.codes(len(c.want)), name)
		b.fault.Set(c.rules...)
		require.Equal(t, c.want, b.codes(len(c.want)), "%s: setting rules again starts them anew", name)
	}
}

func TestFaultUntil(t *testing.T) {
	b := newBench(t)
	b.fault.Set("* rv=0x30 until=C_GenerateRandom")
	require.Equal(t, []uint{0x30, 0x30}, b.codes(2))
	_, err := b.ctx.GenerateRandom(b.session, 4)
	require.NoError(t, err)
	require.Equal(t, []uint{0, 0}, b.codes(2))
}

// TestFaultAfter has calls that fail without doing their work, and calls that do it and deny it.
func TestFaultAfter(t *testing.T) {
	for when, then := range map[string]error{"before": nil, "after": p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)} {
		t.Run(when, func(t *testing.T) {
			b := newBench(t)
			b.fault.Set("C_Login rv=5 when=" + when)
			require.ErrorIs(t, b.ctx.Login(b.session, p11.CKU_USER, PIN), p11.Error(5))
			b.fault.Clear()
			require.ErrorIs(t, b.ctx.Login(b.session, p11.CKU_USER, PIN), then)
		})
	}
}

func TestFaultDelay(t *testing.T) {
	b := newBench(t)
	b.fault.Set("C_GetSessionInfo delay_ms=30 rv=5")
	start := time.Now()
	require.Equal(t, []uint{5}, b.codes(1))
	require.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond)
}

// TestFaultHang lets a call go when the rules in force do not hold it any more, and not before.
func TestFaultHang(t *testing.T) {
	b := newBench(t)
	begun := b.fault.Calls("C_GetSessionInfo")
	b.fault.Set("C_GetSessionInfo hang=1 rv=5 count=1")
	codes := make(chan []uint)
	go func() { codes <- b.codes(1) }()
	require.Eventually(t, func() bool { return b.fault.Calls("C_GetSessionInfo") > begun }, time.Minute, time.Millisecond)
	b.fault.Set("C_Login rv=5", "C_GetSessionInfo hang=1 count=0")
	_, err := b.ctx.GenerateRandom(b.session, 4)
	require.NoError(t, err, "other calls go on")
	select {
	case <-codes:
		require.Fail(t, "the call went on")
	case <-time.After(30 * time.Millisecond):
	}
	b.fault.Clear()
	require.Equal(t, []uint{5}, <-codes)
}

func TestFaultCalls(t *testing.T) {
	b := newBench(t)
	before, encrypted := b.fault.Calls("C_GetSessionInfo"), b.fault.Calls("C_Encrypt")
	b.codes(3)
	b.fault.Set("* rv=5")
	b.codes(2)
	require.Equal(t, before+5, b.fault.Calls("C_GetSessionInfo"))
	require.ErrorIs(t, b.ctx.EncryptInit(b.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, nil)}, 1), p11.Error(5))
	require.Equal(t, encrypted, b.fault.Calls("C_Encrypt"), "C_EncryptInit is another function")
	require.Zero(t, b.fault.Calls("C_Sign"))
}

// TestFaultInChild runs a program of somebody else on the module, with nothing but the environment.
func TestFaultInChild(t *testing.T) {
	soft := New(t)
	soft.Token(t, "child")
	fault := NewFault(t, soft)
	run := func(rules ...string) (string, *os.ProcessState) {
		fault.Set(rules...)
		cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--module", fault.Module, "--show-slots")
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, fault.Env...)
		out, err := cmd.CombinedOutput()
		require.NotNil(t, cmd.ProcessState, "%v", err)
		return string(out), cmd.ProcessState
	}
	signal := func(p *os.ProcessState) syscall.Signal {
		status, ok := p.Sys().(syscall.WaitStatus)
		require.True(t, ok)
		return status.Signal()
	}
	out, state := run()
	require.True(t, state.Success(), out)
	require.Contains(t, out, "child")
	require.Equal(t, 1, fault.Calls("C_Initialize"))
	_, state = run("C_GetSlotList rv=0x30")
	require.False(t, state.Success())
	require.True(t, state.Exited())
	for _, rule := range []string{"C_GetSlotList kill=1", "C_GetTokenInfo kill=1 when=after skip=1", "* kill=1"} {
		_, state = run(rule)
		require.Equal(t, syscall.SIGKILL, signal(state), rule)
	}
	for _, rule := range []string{
		"C_NoSuchFunction rv=5", "C_Login rv=", "C_Login rv=5x", "C_Login count=many", "C_Login wait=5", "C_Login rv", "c_login rv=5",
		"C_Login when=later", "C_Login until=C_NoSuchFunction", "C_Login emulate=abacus",
	} {
		out, state = run(rule)
		require.Equal(t, syscall.SIGABRT, signal(state), rule)
		require.Contains(t, out, "cannot read", rule)
	}
}
