package pkcs11

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// awsPlaintext is the largest plaintext of the AWS API, in bytes.
const awsPlaintext = 4096

// aesKeys are the throw-away keys of the AES-GCM checks. The key under test is made as the keys of the service are, and
// used with the very functions that serve requests.
type aesKeys struct {
	key loadedKey
	// faults are the failures of checks without which SYMMETRIC_DEFAULT must not be served.
	faults []error
}

func aesGroup() group {
	k := &aesKeys{}
	return group{
		key:      "SYMMETRIC_DEFAULT",
		generate: k.generate,
		extras: []step{
			{"IV mode of AES-GCM", k.needed(k.mode)},
			{"altered tag refused", k.needed(k.refuses(func(o *hsm.Opening) { o.Sealed.Data[len(o.Sealed.Data)-1] ^= 1 }))},
			{"altered ciphertext refused", k.needed(k.refuses(func(o *hsm.Opening) { o.Sealed.Data[0] ^= 1 }))},
			{"altered AAD refused", k.needed(k.refuses(func(o *hsm.Opening) { o.AAD[0] ^= 1 }))},
			{"altered IV refused", k.needed(k.refuses(func(o *hsm.Opening) { o.Sealed.IV[0] ^= 1 }))},
			{"AES-GCM equals Go's", k.needed(k.compare)},
			{fmt.Sprintf("plaintext of %d bytes", hsm.MaxPlaintext), k.largest},
			{"C_CopyObject", k.copy},
		},
		algorithms: []step{{"SYMMETRIC_DEFAULT", k.symmetricDefault}},
	}
}

func (k *aesKeys) generate(p *prober) (string, error) {
	handle, err := p.anchor.generateKey(template{kind: hsm.AES256, label: "probe"})
	if err != nil {
		return "", err
	}
	p.keep(handle)
	k.key.handle = handle
	return "", nil
}

// needed notes the failure of a check that SYMMETRIC_DEFAULT depends on.
func (k *aesKeys) needed(c check) check {
	return func(p *prober) (string, error) {
		detail, err := c(p)
		if err != nil && !errors.Is(err, errNoKnownKey) {
			k.faults = append(k.faults, err)
		}
		return detail, err
	}
}

// symmetricDefault adds up what the other checks found.
func (k *aesKeys) symmetricDefault(p *prober) (string, error) {
	if len(k.faults) > 0 {
		return "", k.faults[0]
	}
	if p.caps.GCM.MaxPlaintext < awsPlaintext {
		return "", fmt.Errorf("no plaintext of %d bytes", awsPlaintext)
	}
	return "", nil
}

// mode finds the IV mode in which what the token encrypts can be decrypted.
func (k *aesKeys) mode(p *prober) (string, error) {
	var reasons []string
	for _, mode := range []IVMode{IVCaller, IVInPlace, IVAppended} {
		err := k.tryMode(p, mode)
		if err == nil {
			p.caps.GCM.IV = mode
			return string(mode), nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", mode, describe(err)))
		if err := p.renew(); err != nil {
			return "", err
		}
	}
	return "", errors.New(strings.Join(reasons, "; "))
}

func (k *aesKeys) tryMode(p *prober, mode IVMode) error {
	var given bytes.Buffer
	cfg := &p.work.keys.token.cfg
	cfg.Profile.IV, cfg.Rand = mode, io.TeeReader(p.rand, &given)
	defer func() { cfg.Rand = p.rand }()
	first, err := k.roundTrip(p, 64)
	if err != nil {
		return err
	}
	if mode == IVCaller && !bytes.Equal(first.IV[:], given.Next(hsm.IVSize)) {
		return errors.New("the token replaced the IV")
	}
	second, err := k.roundTrip(p, 64)
	if err != nil {
		return err
	}
	if first.IV == second.IV {
		return errors.New("the token used an IV twice")
	}
	return nil
}

// roundTrip encrypts and decrypts n random bytes.
func (k *aesKeys) roundTrip(p *prober, n int) (hsm.Sealed, error) {
	o, plaintext, err := p.seal(k.key, n)
	if err != nil {
		return hsm.Sealed{}, err
	}
	return o.Sealed, p.opens(k.key, o, plaintext)
}

// seal encrypts n random bytes under a random AAD.
func (p *prober) seal(key loadedKey, n int) (o hsm.Opening, plaintext []byte, err error) {
	random, err := p.random(len(o.AAD) + n)
	if err != nil {
		return o, nil, err
	}
	o.AAD, plaintext = hsm.AAD(random), random[len(o.AAD):]
	o.Sealed, err = p.work.encrypt(&key, o.AAD, plaintext)
	return o, plaintext, err
}

// opens checks that a key decrypts to the plaintext.
func (p *prober) opens(key loadedKey, o hsm.Opening, plaintext []byte) error {
	out := make([]byte, len(o.Sealed.Data))
	n, err := p.work.decrypt(&key, o, out)
	if err != nil {
		return err
	}
	if !bytes.Equal(out[:n], plaintext) {
		return errWrongResult
	}
	return nil
}

// refuses checks that a ciphertext is refused, and that the refusal is understood as such.
func (k *aesKeys) refuses(alter func(*hsm.Opening)) check {
	return func(p *prober) (string, error) {
		if p.caps.GCM.IV == "" {
			return "", errNotTried
		}
		o, _, err := p.seal(k.key, 64)
		if err != nil {
			return "", err
		}
		if o.Key.Proof, err = p.work.makeProof(&k.key); err != nil {
			return "", err
		}
		alter(&o)
		_, err = p.work.decrypt(&k.key, o, make([]byte, len(o.Sealed.Data)))
		if err == nil {
			return "", errors.New("the token accepted it")
		}
		if hsm.ClassOf(err) != hsm.BadInput {
			return "", err
		}
		if p.caps.GCM.Forged == "" {
			p.caps.GCM.Forged = describe(err)
		}
		return describe(err), nil
	}
}

// compare uses a key of known value on both sides.
func (k *aesKeys) compare(p *prober) (string, error) {
	handle, value, err := p.known(secret{keyType: p11.CKK_AES, size: aesKeySize, uses: []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}})
	if err != nil {
		return "", err
	}
	return "", p.encryptsAsGo(handle, value)
}

// encryptsAsGo lets Go decrypt what the token encrypted, and the reverse.
func (p *prober) encryptsAsGo(handle p11.ObjectHandle, value []byte) error {
	if p.caps.GCM.IV == "" {
		return errNotTried
	}
	gcm, err := newGCM(value)
	if err != nil {
		return err
	}
	key := loadedKey{handle: handle}
	o, plaintext, err := p.seal(key, 64)
	if err != nil {
		return err
	}
	got, err := gcm.Open(nil, o.Sealed.IV[:], o.Sealed.Data, o.AAD[:])
	if err != nil || !bytes.Equal(got, plaintext) {
		return errWrongResult
	}
	o.Sealed.IV[0] ^= 1
	o.Sealed.Data = gcm.Seal(nil, o.Sealed.IV[:], plaintext, o.AAD[:])
	return p.opens(key, o, plaintext)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("using the token's key: %w", err)
	}
	return cipher.NewGCM(block)
}

// largest finds the largest plaintext, for there are HSMs with small buffers.
func (k *aesKeys) largest(p *prober) (string, error) {
	if p.caps.GCM.IV == "" {
		return "", errNotTried
	}
	var lost error
	n := largestOf(hsm.MaxPlaintext, func(n int) bool {
		if lost != nil {
			return false
		}
		_, err := k.roundTrip(p, n)
		if err != nil {
			lost = p.renew()
		}
		return err == nil
	})
	if lost != nil {
		return "", lost
	}
	p.caps.GCM.MaxPlaintext = n
	if n < hsm.MaxPlaintext {
		return "", fmt.Errorf("%d bytes at most", n)
	}
	return "", nil
}

// largestOf gives the largest of the numbers 1 to most that fits, trying most first; 0 if none does.
func largestOf(most int, fits func(int) bool) int {
	if fits(most) {
		return most
	}
	return sort.Search(most-1, func(n int) bool { return !fits(n + 1) })
}

// copy checks that a copy decrypts what the original encrypted.
func (k *aesKeys) copy(p *prober) (string, error) {
	if p.caps.GCM.IV == "" {
		return "", errNotTried
	}
	handle, err := p.anchor.copyToSession(k.key.handle)
	if err != nil {
		return "", err
	}
	p.keep(handle)
	o, plaintext, err := p.seal(k.key, 64)
	if err != nil {
		return "", err
	}
	if err := p.opens(loadedKey{handle: handle}, o, plaintext); err != nil {
		return "", err
	}
	if bytes.Equal(p.anchor.attribute(handle, p11.CKA_EXTRACTABLE), []byte{1}) {
		return "", errors.New("the copy is extractable")
	}
	p.caps.Copy = true
	return "", nil
}
