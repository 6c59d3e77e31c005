package pkcs11

import (
	"fmt"
	"syscall"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// scratchSize is the room for the plaintext of one operation: the largest ciphertext, since C_Decrypt may ask for as
// much room as its input takes.
const scratchSize = hsm.MaxPlaintext + 2*hsm.TagSize

// session is one open session. It is for one goroutine at a time.
type session struct {
	m      *Module
	handle p11.SessionHandle
	slot   uint
	// searches tells whether the task under way may search for objects.
	searches bool
	// keys belongs to the epoch of the session; nil in a session outside of one.
	keys *keys
	// scratch holds the plaintext of the operation under way and zeros otherwise. It lies outside the Go heap, in pages
	// that are neither swapped nor dumped where the system allows it; nil in a session that is not a worker's.
	scratch []byte
	// iv and aad are handed to C, and so are allocations of their own.
	iv, aad []byte
}

// openSession opens a read-write session, which every module has (AWS CloudHSM has no others).
func (m *Module) openSession(slot uint) (*session, error) {
	s := &session{m: m, slot: slot, iv: make([]byte, hsm.IVSize), aad: make([]byte, len(hsm.AAD{}))}
	if err := s.connect(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *session) connect() error {
	err := s.m.call("C_OpenSession", func() (err error) {
		s.handle, err = s.m.ctx.OpenSession(s.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		return err
	})
	if err != nil {
		return fmt.Errorf("opening session: %w", err)
	}
	return nil
}

// close closes the session. Its failure means that the session is gone already.
func (s *session) close() {
	_ = s.m.call("C_CloseSession", func() error { return s.m.ctx.CloseSession(s.handle) })
}

// replace puts a fresh session that was seen to work in the place of one that is not to be trusted any more.
func (s *session) replace() error {
	s.close()
	if err := s.connect(); err != nil {
		return err
	}
	return s.check()
}

// check makes the smallest visit to the token. C_GetSessionInfo would be answered by the library alone.
func (s *session) check() error {
	var b [1]byte
	return s.random(b[:])
}

// login logs the user in, for all sessions of the process.
func (s *session) login(pin func() ([]byte, error)) error {
	secret, err := pin()
	if err != nil {
		return fmt.Errorf("reading PIN: %w", err)
	}
	defer clear(secret)
	if len(secret) == 0 {
		return fmt.Errorf("reading PIN: %w", &hsm.Error{Class: hsm.LoginFailed, Cause: errEmptyPIN})
	}
	start := time.Now()
	rv := s.m.direct.login(s.handle, p11.CKU_USER, secret)
	err = s.observe("C_Login", rv, start)
	if rv == p11.CKR_USER_ALREADY_LOGGED_IN {
		return nil
	}
	return err
}

// random fills b from the token's generator.
func (s *session) random(b []byte) error {
	start := time.Now()
	return s.observe("C_GenerateRandom", s.m.direct.random(s.handle, b), start)
}

// observe turns the return code of a direct call into an error and tells Observe of it.
func (s *session) observe(function string, rv uint, start time.Time) error {
	err := result(function, rv)
	s.m.cfg.Observe(function, hsm.ClassOf(err), time.Since(start))
	return err
}

// allocScratch gives the session its scratch buffer. Locking it in memory is best effort: an unprivileged process may
// lock little, and a plaintext in swap is a smaller harm than no service.
func (s *session) allocScratch() error {
	b, err := syscall.Mmap(-1, 0, scratchSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("allocating plaintext buffer: %w", err)
	}
	_ = syscall.Mlock(b)
	_ = syscall.Madvise(b, madvDontDump)
	s.scratch = b
	return nil
}

// madvDontDump is MADV_DONTDUMP of madvise(2) on Linux.
const madvDontDump = 16

func (s *session) freeScratch() {
	clear(s.scratch)
	_ = syscall.Munmap(s.scratch)
	s.scratch = nil
}
