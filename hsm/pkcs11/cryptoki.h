/* The part of the Cryptoki 2.40 interface that the data path calls, written from the OASIS specification
 * "PKCS #11 Cryptographic Token Interface Base Specification Version 2.40", sections 3 and 5. The function list must name
 * every function in the specification's order; those that are not called here are plain pointers. */
#ifndef HSMKMS_CRYPTOKI_H
#define HSMKMS_CRYPTOKI_H

typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;

typedef struct {
	CK_ULONG mechanism;
	void *pParameter;
	CK_ULONG ulParameterLen;
} CK_MECHANISM;

typedef struct {
	CK_BYTE *pIv;
	CK_ULONG ulIvLen;
	CK_ULONG ulIvBits;
	CK_BYTE *pAAD;
	CK_ULONG ulAADLen;
	CK_ULONG ulTagBits;
} CK_GCM_PARAMS;

typedef struct {
	CK_ULONG type;
	void *pValue;
	CK_ULONG ulValueLen;
} CK_ATTRIBUTE;

typedef CK_RV (*ck_create)(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object);
typedef CK_RV (*ck_read)(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count);
typedef CK_RV (*ck_init)(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key);
typedef CK_RV (*ck_crypt)(CK_ULONG session, CK_BYTE *in, CK_ULONG inLen, CK_BYTE *out, CK_ULONG *outLen);
typedef CK_RV (*ck_fill)(CK_ULONG session, CK_BYTE *out, CK_ULONG outLen);
typedef CK_RV (*ck_login)(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG pinLen);

typedef struct {
	CK_BYTE major, minor;
	void *C_Initialize, *C_Finalize, *C_GetInfo, *C_GetFunctionList;
	void *C_GetSlotList, *C_GetSlotInfo, *C_GetTokenInfo, *C_GetMechanismList, *C_GetMechanismInfo;
	void *C_InitToken, *C_InitPIN, *C_SetPIN;
	void *C_OpenSession, *C_CloseSession, *C_CloseAllSessions, *C_GetSessionInfo;
	void *C_GetOperationState, *C_SetOperationState;
	ck_login C_Login;
	void *C_Logout;
	ck_create C_CreateObject;
	void *C_CopyObject, *C_DestroyObject, *C_GetObjectSize;
	ck_read C_GetAttributeValue;
	void *C_SetAttributeValue;
	void *C_FindObjectsInit, *C_FindObjects, *C_FindObjectsFinal;
	ck_init C_EncryptInit;
	ck_crypt C_Encrypt;
	void *C_EncryptUpdate, *C_EncryptFinal;
	ck_init C_DecryptInit;
	ck_crypt C_Decrypt;
	void *C_DecryptUpdate, *C_DecryptFinal;
	void *C_DigestInit, *C_Digest, *C_DigestUpdate, *C_DigestKey, *C_DigestFinal;
	ck_init C_SignInit;
	ck_crypt C_Sign;
	void *C_SignUpdate, *C_SignFinal, *C_SignRecoverInit, *C_SignRecover;
	void *C_VerifyInit, *C_Verify, *C_VerifyUpdate, *C_VerifyFinal, *C_VerifyRecoverInit, *C_VerifyRecover;
	void *C_DigestEncryptUpdate, *C_DecryptDigestUpdate, *C_SignEncryptUpdate, *C_DecryptVerifyUpdate;
	void *C_GenerateKey, *C_GenerateKeyPair, *C_WrapKey, *C_UnwrapKey, *C_DeriveKey;
	void *C_SeedRandom;
	ck_fill C_GenerateRandom;
	void *C_GetFunctionStatus, *C_CancelFunction, *C_WaitForSlotEvent;
} CK_FUNCTION_LIST;

#endif
