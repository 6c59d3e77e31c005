// Package ciphertext is the format of a CiphertextBlob of a symmetric key: what Encrypt, GenerateDataKey and ReEncrypt
// give out and what Decrypt and ReEncrypt take. Callers keep such blobs for decades, so the format is strict and
// bijective: what Parse accepts, Marshal gives back byte for byte, and testdata/ holds blobs of every version.
//
// Version 1, all of it fixed in length but the last field:
//
//	offset  length  field
//	     0       1  version, 1
//	     1       1  form of the key id: 1 for a UUID, 2 for a multi-Region id (mrk-)
//	     2      16  key id
//	    18      32  key material id
//	    50      12  IV of AES-GCM
//	    62  17..    ciphertext (at least one byte) and the tag of 16 bytes
//
// Every byte is authenticated: the fields before the IV through AAD, the rest by AES-GCM itself.
package ciphertext

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// Sizes in bytes.
const (
	MaterialSize = 32
	IVSize       = 12
	TagSize      = 16
	// Overhead is how much longer a blob is than its plaintext.
	Overhead = headerSize + IVSize + TagSize
	// MaxSize is the longest blob that the AWS API takes.
	MaxSize = 6144

	keyIDSize  = 16
	headerSize = 2 + keyIDSize + MaterialSize
)

const (
	version1 = 1

	formUUID        = 1
	formMultiRegion = 2
	multiRegion     = "mrk-"
)

// Blob is a parsed ciphertext blob.
type Blob struct {
	Header
	IV [IVSize]byte
	// Data is the ciphertext and the tag. After Parse it is part of the slice that was parsed.
	Data []byte
}

// Header names the key material that a blob was made with.
type Header struct {
	// KeyID is the bare id of the key: a lower-case UUID, or mrk- and 32 lower-case hexadecimal digits.
	KeyID string
	// Material is the id of the key material.
	Material [MaterialSize]byte
}

// ErrMalformed says that bytes are not a ciphertext blob. Which part is wrong is of no use to honest callers.
var ErrMalformed = errors.New("not a ciphertext blob")

// ErrKeyID says that a key id has neither of the two forms.
var ErrKeyID = errors.New("not a key id")

// Parse reads a blob. It checks the form, not the authenticity.
func Parse(b []byte) (Blob, error) {
	if len(b) <= Overhead || len(b) > MaxSize || b[0] != version1 {
		return Blob{}, ErrMalformed
	}
	var blob Blob
	id := b[2 : 2+keyIDSize]
	switch b[1] {
	case formUUID:
		blob.KeyID = formatUUID(id)
	case formMultiRegion:
		blob.KeyID = multiRegion + hex.EncodeToString(id)
	default:
		return Blob{}, ErrMalformed
	}
	copy(blob.Material[:], b[2+keyIDSize:])
	copy(blob.IV[:], b[headerSize:])
	blob.Data = b[headerSize+IVSize:]
	return blob, nil
}

// Marshal writes a blob. Data must be longer than the tag.
func Marshal(blob Blob) ([]byte, error) {
	if len(blob.Data) <= TagSize || headerSize+IVSize+len(blob.Data) > MaxSize {
		return nil, ErrMalformed
	}
	b := make([]byte, 0, headerSize+IVSize+len(blob.Data))
	b, err := blob.append(b)
	if err != nil {
		return nil, err
	}
	b = append(b, blob.IV[:]...)
	return append(b, blob.Data...), nil
}

func (h Header) append(b []byte) ([]byte, error) {
	form, id, err := parseKeyID(h.KeyID)
	if err != nil {
		return nil, err
	}
	b = append(b, version1, form)
	b = append(b, id[:]...)
	return append(b, h.Material[:]...), nil
}

// AAD is the additional authenticated data of a blob: SHA-256 over a domain separator, the header and an injective
// encoding of the encryption context, so that no two contexts share it, {"ab": "c"} and {"a": "bc"} included. The order of the
// map does not matter.
func (h Header) AAD(context map[string]string) ([sha256.Size]byte, error) {
	b := make([]byte, 0, 512)
	b = append(b, "hsmkms ciphertext\x00"...)
	b, err := h.append(b)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(appendContext(b, context)), nil
}

// appendContext writes the number of pairs and, in the order of the keys, the length and bytes of each key and value.
// Numbers are 32 bits, big-endian.
func appendContext(b []byte, context map[string]string) []byte {
	keys := make([]string, 0, 8)
	for key := range context {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	b = binary.BigEndian.AppendUint32(b, uint32(len(keys)))
	for _, key := range keys {
		b = appendString(b, key)
		b = appendString(b, context[key])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// ValidKeyID tells whether id has one of the two forms of a key id.
func ValidKeyID(id string) bool {
	_, _, err := parseKeyID(id)
	return err == nil
}

func parseKeyID(id string) (form byte, raw [keyIDSize]byte, err error) {
	digits, ok := strings.CutPrefix(id, multiRegion)
	form = formMultiRegion
	if !ok {
		form = formUUID
		if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' {
			return 0, raw, ErrKeyID
		}
		digits = id[:8] + id[9:13] + id[14:18] + id[19:23] + id[24:]
	}
	if len(digits) != 2*keyIDSize || strings.ToLower(digits) != digits {
		return 0, raw, ErrKeyID
	}
	if _, err := hex.Decode(raw[:], []byte(digits)); err != nil {
		return 0, raw, ErrKeyID
	}
	return form, raw, nil
}

func formatUUID(raw []byte) string {
	b := make([]byte, 36)
	hex.Encode(b, raw[:4])
	for i, part := range [][]byte{raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		b[8+5*i] = '-'
		hex.Encode(b[9+5*i:], part)
	}
	return string(b)
}
