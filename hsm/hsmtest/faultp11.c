//go:build ignore

/* (The first line keeps the go command from building this file, which fault.go hands to the C compiler.)
 *
 * A PKCS#11 2.40 module that passes every call on to another module and, as its rules say, makes calls fail, hang, come
 * late or kill the process, and behaves as other makes of HSM do. fault.go documents the rules.
 *
 * Environment, read when the function list is first asked for:
 *   FAULTP11_MODULE  path of the module behind
 *   FAULTP11_RULES   path of the rules, one a line, read again whenever the file is replaced; no file, no rules
 *   FAULTP11_LOG     path of a file that gets a line with the function's name for every call; optional
 *
 * There are three layers, each a function list: the module behind; maker, the same with what another make of HSM does
 * differently; shim, which applies the rules and is what the caller gets. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define CK_PTR *
#define NULL_PTR 0
#define CK_DEFINE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type(*name)
#define CK_CALLBACK_FUNCTION(type, name) type(*name)
#include "pkcs11.h"

#define CKM_AES_KEY_WRAP_KWP 0x210BUL /* PKCS#11 3.0 */
#define IV_SIZE 12
#define MAX_RULES 64
#define MAX_SESSIONS 1024

/* The functions that rules can name. */
#define FUNCTIONS(X) \
	X(C_Initialize, (CK_VOID_PTR args), (args)) \
	X(C_Finalize, (CK_VOID_PTR reserved), (reserved)) \
	X(C_GetInfo, (CK_INFO_PTR info), (info)) \
	X(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR n), (present, slots, n)) \
	X(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info), (slot, info)) \
	X(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list, CK_ULONG_PTR n), (slot, list, n)) \
	X(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info), (slot, type, info)) \
	X(C_InitToken, (CK_SLOT_ID slot, CK_UTF8CHAR_PTR pin, CK_ULONG len, CK_UTF8CHAR_PTR label), (slot, pin, len, label)) \
	X(C_InitPIN, (CK_SESSION_HANDLE s, CK_UTF8CHAR_PTR pin, CK_ULONG len), (s, pin, len)) \
	X(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR s), \
		(slot, flags, app, notify, s)) \
	X(C_CloseSession, (CK_SESSION_HANDLE s), (s)) \
	X(C_GetSessionInfo, (CK_SESSION_HANDLE s, CK_SESSION_INFO_PTR info), (s, info)) \
	X(C_Login, (CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG len), (s, user, pin, len)) \
	X(C_Logout, (CK_SESSION_HANDLE s), (s)) \
	X(C_CreateObject, (CK_SESSION_HANDLE s, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR o), (s, t, n, o)) \
	X(C_CopyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE from, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR o), \
		(s, from, t, n, o)) \
	X(C_DestroyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), (s, o)) \
	X(C_GetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, o, t, n)) \
	X(C_SetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, o, t, n)) \
	X(C_FindObjectsInit, (CK_SESSION_HANDLE s, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, t, n)) \
	X(C_FindObjects, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE_PTR o, CK_ULONG max, CK_ULONG_PTR n), (s, o, max, n)) \
	X(C_FindObjectsFinal, (CK_SESSION_HANDLE s), (s)) \
	X(C_EncryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key), (s, m, key)) \
	X(C_Encrypt, (CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG len, CK_BYTE_PTR out, CK_ULONG_PTR n), (s, in, len, out, n)) \
	X(C_DecryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key), (s, m, key)) \
	X(C_Decrypt, (CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG len, CK_BYTE_PTR out, CK_ULONG_PTR n), (s, in, len, out, n)) \
	X(C_SignInit, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key), (s, m, key)) \
	X(C_Sign, (CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG len, CK_BYTE_PTR out, CK_ULONG_PTR n), (s, in, len, out, n)) \
	X(C_DigestKey, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key), (s, key)) \
	X(C_GenerateKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR o), \
		(s, m, t, n, o)) \
	X(C_GenerateKeyPair, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR pub, CK_ULONG nPub, \
		CK_ATTRIBUTE_PTR priv, CK_ULONG nPriv, CK_OBJECT_HANDLE_PTR oPub, CK_OBJECT_HANDLE_PTR oPriv), \
		(s, m, pub, nPub, priv, nPriv, oPub, oPriv)) \
	X(C_WrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE key, CK_BYTE_PTR out, \
		CK_ULONG_PTR n), (s, m, under, key, out, n)) \
	X(C_UnwrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE under, CK_BYTE_PTR in, CK_ULONG len, \
		CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR o), (s, m, under, in, len, t, n, o)) \
	X(C_DeriveKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE base, CK_ATTRIBUTE_PTR t, CK_ULONG n, \
		CK_OBJECT_HANDLE_PTR o), (s, m, base, t, n, o)) \
	X(C_GenerateRandom, (CK_SESSION_HANDLE s, CK_BYTE_PTR out, CK_ULONG len), (s, out, len))

struct rule {
	char function[32], until[32];
	CK_RV rv;
	int fails, after, hang, kill, over;
	long count, skip, every, calls, delay;
};

static CK_FUNCTION_LIST *module;
static CK_FUNCTION_LIST maker, shim;
static const char *rulesPath;
static int logFile = -1;

/* mu guards everything below. */
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[MAX_RULES];
static int ruleCount;
static struct stat seen;
static struct { int ivInPlace, ivAppended, wrapPKCS7, wrapKWP, oaepSHA256, oaepFills; } emulated;
static struct pending { CK_SESSION_HANDLE session; int used; CK_BYTE iv[IV_SIZE]; } pending[MAX_SESSIONS];

/* ---- Rules ---- */

/* A rule that is not understood must not pass for a rule that does nothing. */
static void reject(const char *word) {
	fprintf(stderr, "faultp11: cannot read %s\n", word);
	abort();
}

static int known(const char *name) {
#define X(function, params, args) if (!strcmp(name, #function)) return 1;
	FUNCTIONS(X)
#undef X
	return !strcmp(name, "*");
}

static void emulate(const char *what) {
	if (!strcmp(what, "iv_in_place")) emulated.ivInPlace = 1;
	else if (!strcmp(what, "iv_appended")) emulated.ivAppended = 1;
	else if (!strcmp(what, "wrap_pkcs7")) emulated.wrapPKCS7 = 1;
	else if (!strcmp(what, "wrap_kwp")) emulated.wrapKWP = 1;
	else if (!strcmp(what, "oaep_sha256")) emulated.oaepSHA256 = 1;
	else if (!strcmp(what, "oaep_fills")) emulated.oaepSHA256 = emulated.oaepFills = 1;
	else reject(what);
}

/* number reads word as KEY=N. */
static int number(const char *word, const char *key, long *n) {
	size_t len = strlen(key);
	char *end;
	if (strncmp(word, key, len) || word[len] != '=') return 0;
	*n = strtol(word + len + 1, &end, 0);
	if (*end || end == word + len + 1) reject(word);
	return 1;
}

static void parseWord(struct rule *r, const char *word) {
	long n = 0;
	if (number(word, "rv", &n)) r->rv = (CK_RV)n, r->fails = 1;
	else if (number(word, "count", &r->count) || number(word, "skip", &r->skip) || number(word, "every", &r->every)) return;
	else if (number(word, "delay_ms", &r->delay)) return;
	else if (number(word, "hang", &n)) r->hang = (int)n;
	else if (number(word, "kill", &n)) r->kill = (int)n;
	else if (!strcmp(word, "when=after")) r->after = 1;
	else if (!strcmp(word, "when=before")) r->after = 0;
	else if (!strncmp(word, "emulate=", 8)) emulate(word + 8);
	else if (!strncmp(word, "until=", 6) && known(word + 6)) snprintf(r->until, sizeof r->until, "%s", word + 6);
	else reject(word);
}

static void parseLine(char *line) {
	char *rest = 0, *word = strtok_r(line, " \t\n", &rest);
	if (!word || *word == '#') return;
	if (!known(word) || ruleCount == MAX_RULES) reject(word);
	struct rule r = {.count = -1, .every = 1};
	int effects = 0, emulates = 0;
	snprintf(r.function, sizeof r.function, "%s", word);
	while ((word = strtok_r(0, " \t\n", &rest))) {
		parseWord(&r, word);
		effects++;
		emulates += !strncmp(word, "emulate=", 8);
	}
	if (effects == 0 || effects > emulates) rules[ruleCount++] = r;
}

/* refresh reads the rules if their file was replaced. The caller holds mu. */
static void refresh(void) {
	struct stat now;
	char line[256];
	if (!rulesPath || stat(rulesPath, &now)) {
		ruleCount = 0;
		memset(&emulated, 0, sizeof emulated);
		memset(&seen, 0, sizeof seen);
		return;
	}
	if (now.st_ino == seen.st_ino && now.st_size == seen.st_size && !memcmp(&now.st_mtim, &seen.st_mtim, sizeof now.st_mtim)) return;
	FILE *f = fopen(rulesPath, "r");
	if (!f) return;
	seen = now;
	ruleCount = 0;
	memset(&emulated, 0, sizeof emulated);
	while (fgets(line, sizeof line, f)) parseLine(line);
	fclose(f);
}

static int matches(const struct rule *r, const char *function) {
	return !r->over && (!strcmp(r->function, "*") || !strcmp(r->function, function));
}

/* pick copies the rule for a call, if there is one, and counts the call against it. */
static int pick(const char *function, struct rule *picked) {
	int hit = 0;
	pthread_mutex_lock(&mu);
	refresh();
	for (int i = 0; i < ruleCount; i++)
		if (!strcmp(rules[i].until, function)) rules[i].over = 1;
	for (int i = 0; i < ruleCount && !hit; i++) {
		struct rule *r = &rules[i];
		if (!matches(r, function) || r->count == 0) continue;
		if (r->skip > 0) { r->skip--; continue; }
		if (++r->calls % r->every) continue;
		if (r->count > 0) r->count--;
		*picked = *r;
		hit = 1;
	}
	pthread_mutex_unlock(&mu);
	return hit;
}

/* hanging tells whether the rules in force still have a function hang; used up or not, for the call has begun. */
static int hanging(const char *function) {
	int hang = 0;
	pthread_mutex_lock(&mu);
	refresh();
	for (int i = 0; i < ruleCount; i++) hang |= matches(&rules[i], function) && rules[i].hang;
	pthread_mutex_unlock(&mu);
	return hang;
}

/* strike does what a rule says and tells whether *rv is to be returned. */
static int strike(const struct rule *r, const char *function, CK_RV *rv) {
	if (r->delay) usleep((useconds_t)r->delay * 1000);
	while (r->hang && hanging(function)) usleep(2000);
	if (r->kill) raise(SIGKILL);
	if (r->fails) *rv = r->rv;
	return r->fails;
}

static void record(const char *function) {
	char line[40];
	int n = snprintf(line, sizeof line, "%s\n", function);
	if (logFile >= 0 && write(logFile, line, (size_t)n) != n) reject("log");
}

#define X(function, params, args) \
	static CK_RV shim_##function params { \
		struct rule r; \
		CK_RV rv; \
		record(#function); \
		int hit = pick(#function, &r); \
		if (hit && !r.after && strike(&r, #function, &rv)) return rv; \
		rv = maker.function args; \
		if (hit && r.after) strike(&r, #function, &rv); \
		return rv; \
	}
FUNCTIONS(X)
#undef X

/* ---- Other makes of HSM ---- */

/* ivOf finds the room for the IV of a session's operation; free room if the session has none and take is set. The caller
 * holds mu. */
static struct pending *ivOf(CK_SESSION_HANDLE session, int take) {
	struct pending *none = 0;
	for (int i = 0; i < MAX_SESSIONS; i++) {
		if (pending[i].used && pending[i].session == session) return &pending[i];
		if (!pending[i].used && !none) none = &pending[i];
	}
	if (take && none) none->used = 1, none->session = session;
	return take ? none : 0;
}

/* An HSM that makes IVs itself: in_place writes over the caller's IV whatever it holds, appended takes none. */
static CK_RV maker_C_EncryptInit(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key) {
	pthread_mutex_lock(&mu);
	int inPlace = emulated.ivInPlace, appended = emulated.ivAppended;
	pthread_mutex_unlock(&mu);
	if ((!inPlace && !appended) || m->mechanism != CKM_AES_GCM || m->ulParameterLen != sizeof(CK_GCM_PARAMS))
		return module->C_EncryptInit(s, m, key);
	CK_GCM_PARAMS params = *(CK_GCM_PARAMS *)m->pParameter;
	CK_MECHANISM made = {CKM_AES_GCM, &params, sizeof params};
	CK_BYTE iv[IV_SIZE];
	if (params.ulIvLen != (inPlace ? IV_SIZE : 0)) return CKR_MECHANISM_PARAM_INVALID;
	if (getrandom(iv, sizeof iv, 0) != sizeof iv) return CKR_RANDOM_NO_RNG;
	if (inPlace) memcpy(params.pIv, iv, sizeof iv);
	params.pIv = iv;
	params.ulIvLen = IV_SIZE;
	params.ulIvBits = IV_SIZE * 8;
	CK_RV rv = module->C_EncryptInit(s, &made, key);
	if (rv || !appended) return rv;
	pthread_mutex_lock(&mu);
	struct pending *p = ivOf(s, 1);
	if (p) memcpy(p->iv, iv, sizeof iv);
	pthread_mutex_unlock(&mu);
	return p ? CKR_OK : CKR_HOST_MEMORY;
}

static CK_RV maker_C_Encrypt(CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG len, CK_BYTE_PTR out, CK_ULONG_PTR n) {
	CK_BYTE iv[IV_SIZE];
	pthread_mutex_lock(&mu);
	struct pending *p = ivOf(s, 0);
	int append = p != 0;
	if (p) memcpy(iv, p->iv, sizeof iv);
	if (p && out) p->used = 0;
	pthread_mutex_unlock(&mu);
	if (append && out && *n < IV_SIZE) return CKR_BUFFER_TOO_SMALL;
	if (append && out) *n -= IV_SIZE;
	CK_RV rv = module->C_Encrypt(s, in, len, out, n);
	if (rv || !append) return rv;
	if (out) memcpy(out + *n, iv, sizeof iv);
	*n += IV_SIZE;
	return CKR_OK;
}

/* Padding with PKCS#7 before the key wrap makes a wrapped 32-byte key 8 bytes longer than RFC 5649 does. The length is
 * what matters here: the 8 bytes are a mark, which is demanded back. */
static const CK_BYTE mark[8] = {8, 8, 8, 8, 8, 8, 8, 8};

/* wrapping translates the mechanism that the emulated make understands into the one of the module behind. */
static CK_RV wrapping(CK_MECHANISM_PTR m, CK_MECHANISM *real, int *pkcs7) {
	pthread_mutex_lock(&mu);
	int kwp = emulated.wrapKWP;
	*pkcs7 = emulated.wrapPKCS7 && m->mechanism == CKM_AES_KEY_WRAP_PAD;
	pthread_mutex_unlock(&mu);
	*real = *m;
	if (kwp && m->mechanism == CKM_AES_KEY_WRAP_PAD) return CKR_MECHANISM_INVALID;
	if (kwp && m->mechanism == CKM_AES_KEY_WRAP_KWP) real->mechanism = CKM_AES_KEY_WRAP_PAD;
	return CKR_OK;
}

static CK_RV maker_C_WrapKey(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE key,
	CK_BYTE_PTR out, CK_ULONG_PTR n) {
	CK_MECHANISM real;
	int pkcs7;
	CK_RV rv = wrapping(m, &real, &pkcs7);
	if (rv) return rv;
	CK_ULONG room = *n;
	rv = module->C_WrapKey(s, &real, under, key, out, n);
	if (rv || !pkcs7) return rv;
	*n += sizeof mark;
	if (out && *n > room) return CKR_BUFFER_TOO_SMALL;
	if (out) memcpy(out + *n - sizeof mark, mark, sizeof mark);
	return CKR_OK;
}

/* An HSM that can do RSAES-OAEP with SHA-256 (RFC 8017, section 7.1.2) for secret keys, which the module behind can not: it is
 * made of the bare RSA operation, C_Digest and C_CreateObject. */
#define HASH 32
#define MAX_MODULUS 512
#define MAX_TEMPLATE 32

static int doesOAEP(void) {
	pthread_mutex_lock(&mu);
	int does = emulated.oaepSHA256;
	pthread_mutex_unlock(&mu);
	return does;
}

/* unmask XORs MGF1 of seed into b. */
static CK_RV unmask(CK_SESSION_HANDLE s, CK_BYTE *b, CK_ULONG len, const CK_BYTE *seed, CK_ULONG seedLen) {
	CK_MECHANISM sha = {CKM_SHA256, 0, 0};
	CK_BYTE in[MAX_MODULUS + 4], mask[HASH];
	memcpy(in, seed, seedLen);
	for (CK_ULONG at = 0; at < len; at += HASH) {
		CK_ULONG n = HASH;
		CK_BYTE counter[4] = {0, 0, 0, (CK_BYTE)(at / HASH)};
		memcpy(in + seedLen, counter, sizeof counter);
		CK_RV rv = module->C_DigestInit(s, &sha);
		if (!rv) rv = module->C_Digest(s, in, seedLen + sizeof counter, mask, &n);
		if (rv) return rv;
		for (CK_ULONG i = 0; i < HASH && at + i < len; i++) b[at + i] ^= mask[i];
	}
	return CKR_OK;
}

static CK_RV unwrapOAEP(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE under, CK_BYTE_PTR in, CK_ULONG len, CK_ATTRIBUTE_PTR t, CK_ULONG n,
	CK_OBJECT_HANDLE_PTR o) {
	static const CK_BYTE empty[HASH] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
		0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};
	CK_MECHANISM raw = {CKM_RSA_X_509, 0, 0};
	CK_ATTRIBUTE all[MAX_TEMPLATE];
	CK_BYTE em[MAX_MODULUS];
	CK_ULONG size = sizeof em;
	if (n + 1 > MAX_TEMPLATE) return CKR_ARGUMENTS_BAD;
	for (CK_ULONG i = 0; i < n; i++)
		if (t[i].type == CKA_CLASS && *(CK_OBJECT_CLASS *)t[i].pValue != CKO_SECRET_KEY) return CKR_TEMPLATE_INCONSISTENT;
	CK_RV rv = module->C_DecryptInit(s, &raw, under);
	if (!rv) rv = module->C_Decrypt(s, in, len, em, &size);
	if (!rv && size < 2 * HASH + 2) rv = CKR_WRAPPED_KEY_INVALID;
	if (!rv) rv = unmask(s, em + 1, HASH, em + 1 + HASH, size - 1 - HASH);
	if (!rv) rv = unmask(s, em + 1 + HASH, size - 1 - HASH, em + 1, HASH);
	if (rv) return rv;
	CK_ULONG at = 1 + 2 * HASH;
	while (at < size && em[at] == 0) at++;
	if (em[0] || memcmp(em + 1 + HASH, empty, HASH) || at == size || em[at] != 1) return CKR_WRAPPED_KEY_INVALID;
	memcpy(all, t, n * sizeof *t);
	CK_BYTE value[MAX_MODULUS] = {0};
	CK_ULONG valueLen = size - at - 1;
	memcpy(value, em + at + 1, size - at - 1);
	if (emulated.oaepFills && valueLen < 32) valueLen = 32;
	all[n] = (CK_ATTRIBUTE){CKA_VALUE, value, valueLen};
	return module->C_CreateObject(s, all, n + 1, o);
}

/* A key that unwraps must be allowed the bare operation too. */
static CK_RV maker_C_GenerateKeyPair(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR pub, CK_ULONG nPub,
	CK_ATTRIBUTE_PTR priv, CK_ULONG nPriv, CK_OBJECT_HANDLE_PTR oPub, CK_OBJECT_HANDLE_PTR oPriv) {
	CK_ATTRIBUTE all[MAX_TEMPLATE];
	CK_BBOOL yes = CK_TRUE;
	if (!doesOAEP() || nPriv > MAX_TEMPLATE) return module->C_GenerateKeyPair(s, m, pub, nPub, priv, nPriv, oPub, oPriv);
	memcpy(all, priv, nPriv * sizeof *priv);
	for (CK_ULONG i = 0; i < nPriv; i++)
		if (all[i].type == CKA_DECRYPT) all[i].pValue = &yes;
	return module->C_GenerateKeyPair(s, m, pub, nPub, all, nPriv, oPub, oPriv);
}

static CK_RV maker_C_UnwrapKey(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE under, CK_BYTE_PTR in, CK_ULONG len,
	CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR o) {
	CK_MECHANISM real;
	int pkcs7;
	if (doesOAEP() && m->mechanism == CKM_RSA_PKCS_OAEP && ((CK_RSA_PKCS_OAEP_PARAMS *)m->pParameter)->hashAlg == CKM_SHA256)
		return unwrapOAEP(s, under, in, len, t, n, o);
	CK_RV rv = wrapping(m, &real, &pkcs7);
	if (rv) return rv;
	if (pkcs7) {
		if (len < sizeof mark || memcmp(in + len - sizeof mark, mark, sizeof mark)) return CKR_WRAPPED_KEY_INVALID;
		len -= sizeof mark;
	}
	return module->C_UnwrapKey(s, &real, under, in, len, t, n, o);
}

/* ---- Start ---- */

static CK_RV load(void) {
	const char *path = getenv("FAULTP11_MODULE"), *rulesName = getenv("FAULTP11_RULES"), *logName = getenv("FAULTP11_LOG");
	void *handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : 0;
	CK_C_GetFunctionList get = handle ? (CK_C_GetFunctionList)dlsym(handle, "C_GetFunctionList") : 0;
	if (!get || get(&module)) return CKR_GENERAL_ERROR;
	if (rulesName) rulesPath = strdup(rulesName);
	if (logName && (logFile = open(logName, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0) return CKR_GENERAL_ERROR;
	maker = *module;
	maker.C_EncryptInit = maker_C_EncryptInit;
	maker.C_Encrypt = maker_C_Encrypt;
	maker.C_WrapKey = maker_C_WrapKey;
	maker.C_UnwrapKey = maker_C_UnwrapKey;
	maker.C_GenerateKeyPair = maker_C_GenerateKeyPair;
	shim = maker;
	shim.C_GetFunctionList = C_GetFunctionList;
#define X(function, params, args) shim.function = shim_##function;
	FUNCTIONS(X)
#undef X
	return CKR_OK;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CK_RV loaded;

static void loadOnce(void) { loaded = load(); }

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
	pthread_once(&once, loadOnce);
	if (!loaded) *list = &shim;
	return loaded;
}
