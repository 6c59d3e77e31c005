package fault

import (
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// tokenOperations gives a request of each kind that needs the token.
func tokenOperations(t *testing.T, x secret, destination string) map[string]string {
	t.Helper()
	return map[string]string{
		"ReEncrypt":                       x.reEncrypt(t, destination),
		"Decrypt":                         body(t, map[string]any{"CiphertextBlob": x.blob}),
		"Encrypt":                         body(t, map[string]any{"KeyId": destination, "Plaintext": []byte("text")}),
		"GenerateDataKey":                 body(t, map[string]any{"KeyId": destination, "KeySpec": "AES_256"}),
		"GenerateDataKeyWithoutPlaintext": body(t, map[string]any{"KeyId": destination, "NumberOfBytes": 5}),
		"GenerateRandom":                  body(t, map[string]any{"NumberOfBytes": 5}),
		"CreateKey":                       "{}",
	}
}

// requireRecordsServed makes requests that need only the store.
func (r *rig) requireRecordsServed(t *testing.T, key string) {
	t.Helper()
	named := body(t, map[string]any{"KeyId": key})
	for _, request := range [][2]string{
		{"DescribeKey", named}, {"DisableKey", named}, {"EnableKey", named}, {"ListKeys", "{}"}, {"ListAliases", "{}"},
	} {
		answer := r.Post(t, request[0], request[1])
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", request[0], answer.Body)
	}
}

// requireRecovered waits until the token works again, and uses keys from before.
func (r *rig) requireRecovered(t *testing.T, x secret, destination string) {
	t.Helper()
	r.requireReady(t)
	for operation, text := range tokenOperations(t, x, destination) {
		answer := r.Post(t, operation, text)
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", operation, answer.Body)
	}
	x.requireOpens(t, r.Server)
}

// TestDeviceGone has every call into the token fail, as when it is unplugged.
func TestDeviceGone(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		for name, code := range map[string]string{"device error": "0x30", "device removed": "0x32", "token not present": "0xe0"} {
			t.Run(name, func(t *testing.T) {
				r.fault.Set("* rv=" + code)
				r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), keyUnavailable, "returned "+code)
				r.requireNotReady(t)
				for operation, text := range tokenOperations(t, x, destination) {
					answer := r.Post(t, operation, text)
					r.requireFault(t, answer, keyUnavailable, "token")
				}
				r.requireRecordsServed(t, destination)
				r.fault.Clear()
				r.requireRecovered(t, x, destination)
			})
		}
	})
}

// TestModuleRestarted has a module that wants C_Finalize and C_Initialize before it does anything again.
func TestModuleRestarted(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		logins, starts := r.fault.Calls("C_Login"), r.fault.Calls("C_Initialize")
		r.fault.Set("C_Finalize", "* rv=0x190 until=C_Initialize")
		r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), keyUnavailable, "returned 0x190")
		r.requireRecovered(t, x, destination)
		require.Equal(t, starts+1, r.fault.Calls("C_Initialize"))
		require.Equal(t, logins+1, r.fault.Calls("C_Login"))
	})
}

// TestTokenLostWhileImportsAreTried has the token fail when the server tries how it imports. The log must say it all the same.
func TestTokenLostWhileImportsAreTried(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	require.NoError(t, r.Stop())
	r.fault.Set("C_DigestKey rv=0x30 count=4")
	require.NoError(t, r.Run())
	r.requireLogged(t, "trying out how the token imports key material", 1)
	r.requireLogged(t, "this process does it; strict_on_token refuses them", 1)
}

// TestPINChangedWhileAway has the token refuse the PIN at a new login. Each further try could lock it.
func TestPINChangedWhileAway(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
	logins := r.fault.Calls("C_Login")
	r.fault.Set("C_Login rv=0xa0", "C_Finalize", "* rv=0x190 until=C_Initialize")
	r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), keyUnavailable, "returned 0x190")
	r.requireLogged(t, "not tried again", 1)
	r.requireNotReady(t)
	r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), keyUnavailable, "C_Login returned 0xa0")
	require.Equal(t, logins+1, r.fault.Calls("C_Login"))
	r.requireRecordsServed(t, destination)
}

// TestDeviceErrorOnce has one call of a function fail, which spoils a session. Clients must not notice.
func TestDeviceErrorOnce(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		for _, function := range []string{"C_DecryptInit", "C_Decrypt", "C_EncryptInit", "C_Encrypt"} {
			opened, logins := r.fault.Calls("C_OpenSession"), r.fault.Calls("C_Login")
			r.fault.Set(function + " rv=0x30 count=1")
			answer := r.Post(t, "ReEncrypt", x.reEncrypt(t, destination))
			require.Equal(t, http.StatusOK, answer.Status, "%s: %s", function, answer.Body)
			require.Equal(t, opened+1, r.fault.Calls("C_OpenSession"), "%s did not fail, or its session was not replaced", function)
			require.Equal(t, logins, r.fault.Calls("C_Login"))
		}
		r.fault.Set("C_GenerateRandom rv=0x30 count=1")
		answer := r.Post(t, "GenerateRandom", `{"NumberOfBytes": 5}`)
		require.Equal(t, http.StatusOK, answer.Status, answer.Body)
		r.requireReady(t)
	})
}

// TestCallHangs has the token not answer.
func TestCallHangs(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Top: []string{"request_timeout: 1s"}, Settings: []string{"sessions: 1"}})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		logins := r.fault.Calls("C_Login")
		r.fault.Set("C_Decrypt hang=1")
		var group sync.WaitGroup
		answers := make([]kmstest.Answer, 8)
		for i := range answers { // one hangs and the others wait for its session
			group.Go(func() { answers[i] = r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)) })
		}
		group.Wait()
		for _, answer := range answers {
			r.requireFault(t, answer, dependencyTimeout, "deadline exceeded")
		}
		r.requireNotReady(t)
		r.requireFault(t, r.Post(t, "GenerateRandom", `{"NumberOfBytes": 5}`), dependencyTimeout, "deadline exceeded")
		r.requireRecordsServed(t, destination)
		r.fault.Clear()
		r.requireRecovered(t, x, destination)
		require.Equal(t, logins, r.fault.Calls("C_Login"))
	})
}

// TestCallIsSlow has the token answer too late.
func TestCallIsSlow(t *testing.T) {
	r := newRig(t, kmstest.Options{Top: []string{"request_timeout: 1s"}})
	x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
	r.fault.Set("C_Encrypt delay_ms=3000 count=1")
	r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), dependencyTimeout, "deadline exceeded")
	r.requireRecovered(t, x, destination)
}

// TestHangHoldsOneSession has one of two sessions hang. The other serves everybody.
func TestHangHoldsOneSession(t *testing.T) {
	r := newRig(t, kmstest.Options{Top: []string{"request_timeout: 2s"}, Settings: []string{"sessions: 2"}})
	x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
	r.fault.Set("C_Decrypt hang=1 count=1")
	r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), dependencyTimeout, "deadline exceeded")
	for range 50 {
		answer := r.Post(t, "ReEncrypt", x.reEncrypt(t, destination))
		require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	}
	r.requireReady(t)
	r.fault.Clear()
	r.requireRecovered(t, x, destination)
}

// TestUnexpectedCode has codes that say nothing of the token's health: the request fails, and nothing else.
func TestUnexpectedCode(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		logins := r.fault.Calls("C_Login")
		for _, c := range []struct{ rule, cause string }{
			{"C_EncryptInit rv=0x5", "C_EncryptInit returned 0x5"},
			{"C_EncryptInit rv=0x68", "C_EncryptInit returned 0x68"}, // CKR_KEY_FUNCTION_NOT_PERMITTED
			{"C_Encrypt rv=0x6", "C_Encrypt returned 0x6"},
			{"C_DecryptInit rv=0x5", "C_DecryptInit returned 0x5"},
			{"C_EncryptInit rv=0x80001234", "C_EncryptInit returned 0x80001234"}, // a vendor's own
		} {
			r.fault.Set(c.rule)
			r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), internalError, c.cause)
			r.fault.Clear()
			r.requireRecovered(t, x, destination)
		}
		require.Equal(t, logins, r.fault.Calls("C_Login"), "the token was re-opened without need")
	})
}

// TestLivezMakesNoTokenCall counts calls, and those of /readyz, so that the count can be seen to work.
func TestLivezMakesNoTokenCall(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	r.requireReady(t)
	requireStockTaken(t, r.Server)
	before := r.Calls(t)
	for range 100 {
		r.requireAlive(t)
	}
	require.Equal(t, before, r.Calls(t))
	eventually(t, func() bool { // its answer stands for a second
		r.requireReady(t)
		return r.Calls(t)["C_GenerateRandom"] > before["C_GenerateRandom"]
	}, "/readyz does not ask the token")
}
