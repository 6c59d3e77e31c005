package pkcs11

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include "cryptoki.h"

#define CKM_AES_GCM 0x1087UL
#define CKA_VALUE 0x11UL
#define CKR_ARGUMENTS_BAD 0x7UL
#define MAX_ATTRIBUTES 24

typedef CK_RV (*get_list)(CK_FUNCTION_LIST **list);

// direct_load finds the function list of a module. It asks twice: some modules (those of p11-kit) hand out a new,
// separate instance at each call, and an instance that another caller initialised is of no use here.
static int direct_load(const char *path, CK_FUNCTION_LIST **list) {
	CK_FUNCTION_LIST *again = 0;
	void *module = dlopen(path, RTLD_NOW);
	if (!module) return 1;
	get_list get = (get_list)dlsym(module, "C_GetFunctionList");
	if (!get || get(list) || get(&again) || !*list) return 2;
	return *list == again ? 0 : 3;
}

// direct_crypt runs Init and the operation. *stage counts the steps that succeeded.
static CK_RV direct_crypt(CK_FUNCTION_LIST *f, int decrypting, CK_ULONG session, CK_ULONG key, CK_MECHANISM *mechanism,
	CK_BYTE *in, CK_ULONG inLen, CK_BYTE *out, CK_ULONG *outLen, int *stage) {
	CK_RV rv = (decrypting ? f->C_DecryptInit : f->C_EncryptInit)(session, mechanism, key);
	if (rv) return rv;
	*stage = 1;
	return (decrypting ? f->C_Decrypt : f->C_Encrypt)(session, in, inLen, out, outLen);
}

static CK_RV direct_gcm(CK_FUNCTION_LIST *f, int decrypting, CK_ULONG session, CK_ULONG key, CK_BYTE *iv, CK_ULONG ivLen,
	CK_BYTE *aad, CK_ULONG aadLen, CK_BYTE *in, CK_ULONG inLen, CK_BYTE *out, CK_ULONG *outLen, int *stage) {
	CK_GCM_PARAMS params = {iv, ivLen, ivLen * 8, aad, aadLen, 128};
	CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
	return direct_crypt(f, decrypting, session, key, &mechanism, in, inLen, out, outLen, stage);
}

static CK_RV direct_bare(CK_FUNCTION_LIST *f, int decrypting, CK_ULONG session, CK_ULONG key, CK_ULONG type,
	CK_BYTE *parameter, CK_ULONG parameterLen, CK_BYTE *in, CK_ULONG inLen, CK_BYTE *out, CK_ULONG *outLen, int *stage) {
	CK_MECHANISM mechanism = {type, parameter, parameterLen};
	return direct_crypt(f, decrypting, session, key, &mechanism, in, inLen, out, outLen, stage);
}

static CK_RV direct_sign(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG key, CK_ULONG type, CK_BYTE *parameter,
	CK_ULONG parameterLen, CK_BYTE *in, CK_ULONG inLen, CK_BYTE *out, CK_ULONG *outLen, int *stage) {
	CK_MECHANISM mechanism = {type, parameter, parameterLen};
	CK_RV rv = f->C_SignInit(session, &mechanism, key);
	if (rv) return rv;
	*stage = 1;
	return f->C_Sign(session, in, inLen, out, outLen);
}

static CK_RV direct_read(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG object, CK_ULONG type, CK_BYTE *out, CK_ULONG *outLen) {
	CK_ATTRIBUTE attribute = {type, out, *outLen};
	CK_RV rv = f->C_GetAttributeValue(session, object, &attribute, 1);
	*outLen = attribute.ulValueLen;
	return rv;
}

// direct_create makes a key of a value. The attributes are pairs of a type and a CK_ULONG or, from the first that is boolean
// on, a CK_BBOOL; those of text are pairs of a type and a length, with the text of all of them in one piece.
static CK_RV direct_create(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG *pairs, CK_ULONG count, CK_ULONG firstBoolean,
	CK_ULONG *texts, CK_ULONG textCount, CK_BYTE *text, CK_BYTE *value, CK_ULONG valueLen, CK_ULONG *object) {
	CK_ATTRIBUTE template[MAX_ATTRIBUTES + 1];
	CK_BYTE flags[MAX_ATTRIBUTES];
	if (count + textCount > MAX_ATTRIBUTES) return CKR_ARGUMENTS_BAD;
	for (CK_ULONG i = 0; i < count; i++) {
		flags[i] = pairs[2 * i + 1] != 0;
		template[i] = (CK_ATTRIBUTE){pairs[2 * i], i < firstBoolean ? (void *)&pairs[2 * i + 1] : (void *)&flags[i],
			i < firstBoolean ? sizeof(CK_ULONG) : sizeof(CK_BYTE)};
	}
	for (CK_ULONG i = 0; i < textCount; text += texts[2 * i + 1], i++)
		template[count++] = (CK_ATTRIBUTE){texts[2 * i], text, texts[2 * i + 1]};
	template[count] = (CK_ATTRIBUTE){CKA_VALUE, value, valueLen};
	return f->C_CreateObject(session, template, count + 1, object);
}

static CK_RV direct_random(CK_FUNCTION_LIST *f, CK_ULONG session, CK_BYTE *out, CK_ULONG len) {
	return f->C_GenerateRandom(session, out, len);
}

static CK_RV direct_login(CK_FUNCTION_LIST *f, CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG len) {
	return f->C_Login(session, user, pin, len);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// direct calls the functions of a module that carry plaintext, a caller's ciphertext or a PIN. Each method is one
// crossing into C that runs C_*Init and the operation, into a buffer that the caller owns and wipes. The miekg binding,
// which does everything else, would copy such data into C memory that it neither wipes nor, on failure, frees.
type direct struct{ list *C.CK_FUNCTION_LIST }

// loadDirect opens the module at path a second time; the dynamic linker gives the instance that miekg has.
func loadDirect(path string) (direct, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var d direct
	list := &d.list
	switch C.direct_load(name, list) {
	case 0:
		return d, nil
	case 3:
		return d, fmt.Errorf("module %s gives a separate instance at each C_GetFunctionList (p11-kit does); name the vendor's module instead", path)
	default:
		return d, fmt.Errorf("module %s has no usable C_GetFunctionList", path)
	}
}

// gcm is one AES-GCM operation with a 128-bit tag.
type gcm struct {
	session p11.SessionHandle
	key     p11.ObjectHandle
	// iv may be empty for a module that makes IVs itself; such a module may also write into it.
	iv      []byte
	aad, in []byte // never empty
	// out receives the result. For a decryption it needs room for len(in) bytes, because some modules ask for it.
	out []byte
}

// encrypt runs C_EncryptInit and C_Encrypt. It gives the number of bytes written to out, the name of the function
// that was called last and its return code.
func (d direct) encrypt(op gcm) (int, string, uint) {
	n, stage, rv := d.gcm(op, 0)
	return n, [...]string{"C_EncryptInit", "C_Encrypt"}[stage], rv
}

// decrypt is the reverse of encrypt, with C_DecryptInit and C_Decrypt.
func (d direct) decrypt(op gcm) (int, string, uint) {
	n, stage, rv := d.gcm(op, 1)
	return n, [...]string{"C_DecryptInit", "C_Decrypt"}[stage], rv
}

func (d direct) gcm(op gcm, decrypting C.int) (int, int, uint) {
	n := size(op.out)
	var stage C.int
	rv := C.direct_gcm(d.list, decrypting, C.CK_ULONG(op.session), C.CK_ULONG(op.key), pointer(op.iv), size(op.iv),
		pointer(op.aad), size(op.aad), pointer(op.in), size(op.in), pointer(op.out), &n, &stage)
	return int(n), int(stage), uint(rv)
}

// bare is one operation of a mechanism that has no parameter, or one without pointers.
type bare struct {
	session   p11.SessionHandle
	key       p11.ObjectHandle
	mechanism uint
	parameter []byte
	in        []byte // not empty
	out       []byte
}

// encryptBare is encrypt of a bare operation.
func (d direct) encryptBare(op bare) (int, string, uint) {
	n, stage, rv := d.bare(op, 0)
	return n, [...]string{"C_EncryptInit", "C_Encrypt"}[stage], rv
}

// decryptBare is decrypt of a bare operation.
func (d direct) decryptBare(op bare) (int, string, uint) {
	n, stage, rv := d.bare(op, 1)
	return n, [...]string{"C_DecryptInit", "C_Decrypt"}[stage], rv
}

func (d direct) bare(op bare, decrypting C.int) (int, int, uint) {
	n := size(op.out)
	var stage C.int
	rv := C.direct_bare(d.list, decrypting, C.CK_ULONG(op.session), C.CK_ULONG(op.key), C.CK_ULONG(op.mechanism),
		pointer(op.parameter), size(op.parameter), pointer(op.in), size(op.in), pointer(op.out), &n, &stage)
	return int(n), int(stage), uint(rv)
}

// sign runs C_SignInit and C_Sign; see encrypt.
func (d direct) sign(op bare) (int, string, uint) {
	n := size(op.out)
	var stage C.int
	rv := C.direct_sign(d.list, C.CK_ULONG(op.session), C.CK_ULONG(op.key), C.CK_ULONG(op.mechanism),
		pointer(op.parameter), size(op.parameter), pointer(op.in), size(op.in), pointer(op.out), &n, &stage)
	return int(n), [...]string{"C_SignInit", "C_Sign"}[stage], uint(rv)
}

// read runs C_GetAttributeValue of one attribute into out and gives its length.
func (d direct) read(s p11.SessionHandle, object p11.ObjectHandle, attribute uint, out []byte) (int, uint) {
	n := size(out)
	rv := C.direct_read(d.list, C.CK_ULONG(s), C.CK_ULONG(object), C.CK_ULONG(attribute), pointer(out), &n)
	return int(n), uint(rv)
}

// creation is a key to be made of a value.
type creation struct {
	session p11.SessionHandle
	// numbers and booleans are attributes, each a type and its value.
	numbers, booleans [][2]uint
	// texts are attributes that are strings of bytes, none of them empty or secret.
	texts []*p11.Attribute
	value []byte // not empty
}

// create runs C_CreateObject. The binding would copy the value into C memory and not wipe it.
func (d direct) create(c creation) (p11.ObjectHandle, uint) {
	pairs := make([]C.CK_ULONG, 0, 2*(len(c.numbers)+len(c.booleans)))
	for _, list := range [][][2]uint{c.numbers, c.booleans} {
		for _, a := range list {
			pairs = append(pairs, C.CK_ULONG(a[0]), C.CK_ULONG(a[1]))
		}
	}
	var texts []C.CK_ULONG
	var text []byte
	for _, a := range c.texts {
		texts, text = append(texts, C.CK_ULONG(a.Type), size(a.Value)), append(text, a.Value...)
	}
	var object C.CK_ULONG
	rv := C.direct_create(d.list, C.CK_ULONG(c.session), unsafe.SliceData(pairs), C.CK_ULONG(len(pairs)/2), C.CK_ULONG(len(c.numbers)),
		unsafe.SliceData(texts), C.CK_ULONG(len(c.texts)), pointer(text), pointer(c.value), size(c.value), &object)
	return p11.ObjectHandle(object), uint(rv)
}

// random fills b, which may not be empty, with C_GenerateRandom.
func (d direct) random(s p11.SessionHandle, b []byte) uint {
	return uint(C.direct_random(d.list, C.CK_ULONG(s), pointer(b), size(b)))
}

// login logs the user in; pin may not be empty and stays the caller's to wipe.
func (d direct) login(s p11.SessionHandle, user uint, pin []byte) uint {
	return uint(C.direct_login(d.list, C.CK_ULONG(s), C.CK_ULONG(user), pointer(pin), size(pin)))
}

// pointer gives the bytes a type, for cgo refuses an untyped pointer into memory that holds pointers elsewhere, and a
// caller's buffer may be a field of such a struct.
func pointer(b []byte) *C.CK_BYTE { return (*C.CK_BYTE)(unsafe.SliceData(b)) }

func size(b []byte) C.CK_ULONG { return C.CK_ULONG(len(b)) }

// ulongs is a structure of CK_ULONGs, and of null pointers if they are as long, for bare.parameter.
func ulongs(numbers ...uint) []byte {
	var b []byte
	for _, n := range numbers {
		u := C.CK_ULONG(n)
		b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&u)), unsafe.Sizeof(u))...)
	}
	return b
}
